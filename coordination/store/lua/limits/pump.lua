#!lua
-- The pump's turn: admits all who pass within the horizon. A process that only looks whether the pump still runs does no
-- more than that, unless it is overdue: then it takes over.
-- KEYS  own, waiters, tenants, granted, fair
-- ARGV  1 base of the keys, 2 process
-- Returns {number waiting, us until the next look, 1 if the caller is to pump then}
--@include buckets
--@include queue
local now = clock()
local h = redis.call('HMGET', KEYS[1], 'n', 'pump', 'due')
if not h[1] then return {0, 0, 0} end
if h[2] and h[2] ~= ARGV[2] and tonumber(h[3]) + OVERDUE > now then
  return {tonumber(h[1]), math.max(tonumber(h[3]) - now, 0), 0}
end
return {let_in(ARGV[2], now)}
