#!lua flags=allow-oom
-- Withdraws a request for good: out of the queue, or the lease passed on if it was granted meanwhile. The id is refused
-- for 10 s, since a cancel can overtake its request on another connection.
-- KEYS  lease, queue, waiters, cancelled, events
-- ARGV  1 channel prefix, 2 channel of everyone, 3 record events, 4 request id
-- Returns {1 if the request held the lease, fence of the next grant or 0, us of its provisional window}
--@include lease
local rid, now = ARGV[4], clock()
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now)
redis.call('ZADD', KEYS[4], now + 10000000, rid)
redis.call('PEXPIRE', KEYS[4], 11000)
redis.call('HSET', KEYS[1], 'cx', int(now + 10000000))
redis.call('PEXPIRE', KEYS[1], KEEP, 'NX')
local entry = redis.call('HGET', KEYS[3], rid)
if entry then
  redis.call('ZREM', KEYS[2], cjson.decode(entry).place)
  redis.call('HDEL', KEYS[3], rid)
end
local h = redis.call('HMGET', KEYS[1], 'f', 'rid', 'agent', 'n', 'role')
if h[2] ~= rid then
  return {0, 0, 0}
end
vacate()
record('release', h[3], tonumber(h[1]), h[5], 'cancelled', now)
local fence = h[4] == '1' and grant_next(now, tonumber(h[1]), '') or 0
return {1, fence or 0, PROVISIONAL}
