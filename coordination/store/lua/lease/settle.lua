#!lua flags=allow-oom
-- The second look at a pushed grant: if its grantee has not renewed within the provisional window, the lease is passed
-- on. The grantee's entry is gone from the queue; when it wakes, its repeated request queues it again.
-- KEYS  lease, queue, waiters, cancelled, events
-- ARGV  1 channel prefix, 2 channel of everyone, 3 record events, 4 fence of the pushed grant
-- Returns {1 if it was not taken, fence of the next grant or 0, us until the next look}
--@include lease
local now = clock()
local h = redis.call('HMGET', KEYS[1], 'f', 'rid', 'agent', 'prov', 'n')
if h[1] ~= ARGV[4] or not h[2] or h[4] == '0' then
  return {0, 0, 0}
end
if tonumber(h[4]) > now then
  return {0, tonumber(h[1]), tonumber(h[4]) - now}
end
vacate()
record('expire', h[3], tonumber(h[1]), '', 'not taken', now)
local fence = h[5] == '1' and grant_next(now, tonumber(h[1]), '') or 0
return {1, fence or 0, PROVISIONAL}
