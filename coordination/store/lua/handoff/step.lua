#!lua
-- The target of a handoff claims it (exactly one agent can), and later says that it is ready.
-- KEYS  lease, queue, waiters, cancelled, events, 6 handoff
-- ARGV  1 channel prefix, 2 channel of everyone, 3 record events, 4 handoff id, 5 'claimed' or 'ready', 6 agent,
--       7 process, 8 us that the holder still has for the commit, 9 kind of the claim: 'standby' or 'dispatched'
-- Returns {1} or {0, state, agent that claimed it}
--@include lease
local now = clock()
local h = redis.call('HMGET', KEYS[6], 'id', 'state', 'to_agent', 'until', 'to_role', 'fence')
if h[1] ~= ARGV[4] then
  return {0, 'gone', ''}
end
if h[2] == ARGV[5] and h[3] == ARGV[6] then
  return {1}
end
local allowed = ARGV[5] == 'claimed' and h[2] == 'offered' or ARGV[5] == 'ready' and h[2] == 'claimed' and h[3] == ARGV[6]
if not allowed or tonumber(h[4]) <= now then
  return {0, h[2], h[3] or ''}
end
redis.call('HSET', KEYS[6], 'state', ARGV[5], 'to_agent', ARGV[6], 'to_process', ARGV[7], ARGV[5] .. '_at', int(now))
if ARGV[9] ~= '' then redis.call('HSET', KEYS[6], 'kind', ARGV[9]) end
if ARGV[5] == 'ready' then
  redis.call('HSET', KEYS[6], 'until', int(now + tonumber(ARGV[8])))
end
record(ARGV[5], ARGV[6], tonumber(h[6]), h[5], '', now)
redis.call('SPUBLISH', ARGV[2], '{"k":"handoff"}')
return {1}
