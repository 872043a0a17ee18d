#!lua flags=allow-oom
-- Ends an open handoff without a move: from any side, for any reason.
-- KEYS  lease, queue, waiters, cancelled, events, 6 handoff
-- ARGV  1 channel prefix, 2 channel of everyone, 3 record events, 4 handoff id, 5 reason
-- Returns 1 if it was open, else 0
--@include lease
local h = redis.call('HMGET', KEYS[6], 'id', 'state', 'to_role', 'from_agent', 'fence')
if h[1] ~= ARGV[4] or h[2] == 'committed' or h[2] == 'aborted' then
  return 0
end
local now = clock()
redis.call('HSET', KEYS[6], 'state', 'aborted', 'why', ARGV[5], 'aborted_at', int(now))
record('abort', h[4], tonumber(h[5]), h[3], ARGV[5], now)
redis.call('SPUBLISH', ARGV[2], '{"k":"handoff"}')
return 1
