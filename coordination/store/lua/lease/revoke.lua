#!lua flags=allow-oom
-- Takes a lease away from its holder. Under rule 'silence' the holder has half a second to fall silent and release;
-- after that it counts as expired and must be silenced. Under rule 'free' the lease is passed on at once.
-- KEYS  lease, queue, waiters, cancelled, events
-- ARGV  1 channel prefix, 2 channel of everyone, 3 record events, 4 fence, or '0' for whoever holds it, 5 reason,
--       6 rule of expiry
-- Returns {1 if somebody held it, its fence, holder, fence of the next grant or 0, us of its provisional window}
--@include lease
local now = clock()
local h = redis.call('HMGET', KEYS[1], 'f', 'rid', 'agent', 'ch', 'n', 'role', 'condemned', 'until')
if not h[2] or h[7] == '1' or (ARGV[4] ~= '0' and ARGV[4] ~= h[1]) then
  return {0, tonumber(h[1] or 0), '', 0, 0}
end
record('revoke', h[3], tonumber(h[1]), h[6], ARGV[5], now)
redis.call('SPUBLISH', ARGV[1] .. h[4], 'lost ' .. h[2] .. ' ' .. h[1] .. ' revoked')
if ARGV[6] == 'silence' then
  redis.call('HSET', KEYS[1], 'condemned', '1', 'prov', '0', 'until', int(now + 500000), 'shut', h[8])
  return {1, tonumber(h[1]), h[3], 0, 0}
end
vacate()
local fence = h[5] == '1' and grant_next(now, tonumber(h[1]), '') or 0
return {1, tonumber(h[1]), h[3], fence or 0, PROVISIONAL}
