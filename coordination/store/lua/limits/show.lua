#!lua
-- What a provider's limits look like now.
-- KEYS  own, waiters, tenants, granted, fair
-- ARGV  1 base of the keys, 2 prefix of the minutes' hashes, 3 number of minutes, 4 number of buckets, then the field
--       of each; then sets of slots
-- Returns {server time, number waiting, queue length of each tenant that waits (flat), moment at which each bucket is
-- full, slots taken of each set, processes, counts of the minutes (flat, one list each)}
--@include buckets
local now = clock()
local many = tonumber(ARGV[4])
local tenants, full, slots, minutes = {}, {}, {}, {}
for _, tenant in ipairs(redis.call('ZRANGE', KEYS[3], 0, 255)) do
  tenants[#tenants + 1] = tenant
  tenants[#tenants + 1] = redis.call('ZCARD', ARGV[1] .. 'q:' .. tenant)
end
for i = 5, 4 + many do
  full[#full + 1] = level(ARGV[i])
end
for i = 5 + many, #ARGV do
  slots[#slots + 1] = redis.call('ZCOUNT', ARGV[1] .. ARGV[i], digits(now), '+inf')
end
local minute = math.floor(now / 60000000)
for i = 0, ARGV[3] - 1 do
  minutes[#minutes + 1] = redis.call('HGETALL', ARGV[2] .. (minute - i))
end
local live = redis.call('ZCOUNT', ARGV[1] .. 'beats', digits(now - SLICE), '+inf')
return {now, redis.call('HLEN', KEYS[2]), tenants, full, slots, live, minutes}
