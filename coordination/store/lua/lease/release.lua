#!lua flags=allow-oom
-- Gives a lease back and grants it to the next waiter that can be reached, in the same step.
-- KEYS  lease, queue, waiters, cancelled, events
-- ARGV  1 channel prefix, 2 channel of everyone, 3 record events, 4 request id
-- Returns {1 if it was held by this request, else 0, fence of the next grant or 0, us of its provisional window}
--@include lease
local h = redis.call('HMGET', KEYS[1], 'f', 'rid', 'agent', 'n', 'role')
if h[2] ~= ARGV[4] then
  return {0, 0, 0}
end
vacate()
if ARGV[3] == '1' or ARGV[2] ~= '' then
  record('release', h[3], tonumber(h[1]), h[5], '', clock())
end
if h[4] ~= '1' then
  return {1, 0, 0}
end
local fence = grant_next(clock(), tonumber(h[1]), '')
return {1, fence or 0, PROVISIONAL}
