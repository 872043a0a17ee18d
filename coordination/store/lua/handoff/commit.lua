#!lua
-- Moves the floor to the agent that is ready, in one step with the record of the handoff. The old holder has fallen silent.
-- KEYS  lease, queue, waiters, cancelled, events, 6 handoff
-- ARGV  1 channel prefix, 2 channel of everyone, 3 record events, 4 request id of the holder, 5 handoff id,
--       6 request id of the target, 7 ttl (us)
-- Returns {1, fence, us of the provisional window}; {0, fence} if the caller does not hold the floor any more;
--   {2, state} if the handoff is not ready; {3} if the target does not listen any more
--@include lease
local now = clock()
local h = redis.call('HMGET', KEYS[1], 'f', 'rid', 'agent', 'condemned')
local record_of = redis.call('HMGET', KEYS[6], 'id', 'state', 'to_agent', 'to_process', 'to_role')
if record_of[1] == ARGV[5] and record_of[2] == 'committed' and h[2] == ARGV[6] then
  return {1, tonumber(h[1]), PROVISIONAL}
end
if h[2] ~= ARGV[4] or h[4] == '1' then
  return {0, tonumber(h[1] or 0)}
end
if record_of[1] ~= ARGV[5] or record_of[2] ~= 'ready' then
  return {2, record_of[1] == ARGV[5] and record_of[2] or 'gone'}
end
local fence = fence_after(now, tonumber(h[1]), 0)
if push(now, fence, ARGV[6], record_of[4], tonumber(ARGV[7])) == 0 then
  return {3}
end
install(now, fence, ARGV[6], record_of[3], record_of[4], record_of[5], tonumber(ARGV[7]), PROVISIONAL)
redis.call('HDEL', KEYS[1], 'why')
redis.call('HSET', KEYS[6], 'state', 'committed', 'committed_at', int(now), 'fence', int(fence))
record('commit', record_of[3], fence, record_of[5], '', now)
redis.call('SPUBLISH', ARGV[2], '{"k":"handoff"}')
return {1, fence, PROVISIONAL}
