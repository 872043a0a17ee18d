#!lua
-- The floor holder offers the floor to a role. At most one handoff is open in a room.
-- KEYS  lease, queue, waiters, cancelled, events, 6 handoff
-- ARGV  1 channel prefix, 2 channel of everyone, 3 record events, 4 request id of the holder, 5 handoff id, 6 role,
--       7 context (JSON), 8 deadline (us from now), 9 role of the holder, 10 TTL of the record (ms)
-- Returns {1, server time}; {0, fence} if the caller does not hold the floor; {2, id, role} if another one is open
--@include lease
local now = clock()
local h = redis.call('HMGET', KEYS[1], 'f', 'rid', 'agent', 'condemned')
if h[2] ~= ARGV[4] or h[4] == '1' then
  return {0, tonumber(h[1] or 0)}
end
local open = redis.call('HMGET', KEYS[6], 'id', 'state', 'until', 'to_role')
if open[1] == ARGV[5] then
  return {1, now}
end
if open[1] and open[2] ~= 'committed' and open[2] ~= 'aborted' and tonumber(open[3]) > now then
  return {2, open[1], open[4]}
end
redis.call('DEL', KEYS[6])
redis.call('HSET', KEYS[6], 'id', ARGV[5], 'state', 'offered', 'from_agent', h[3], 'from_role', ARGV[9], 'to_role', ARGV[6],
  'context', ARGV[7], 'until', int(now + tonumber(ARGV[8])), 'offered_at', int(now), 'fence', h[1])
redis.call('PEXPIRE', KEYS[6], ARGV[10])
record('offer', h[3], tonumber(h[1]), ARGV[6], '', now)
redis.call('SPUBLISH', ARGV[2], '{"k":"handoff"}')
return {1, now}
