#!lua
-- Adds what a process counted to the use of the minute, by the server's clock. An hour later it is gone.
-- KEYS  own, waiters, tenants, granted, fair
-- ARGV  1 prefix of the minutes' hashes, 2.. name and number of each count
local minute = ARGV[1] .. math.floor(redis.call('TIME')[1] / 60)
for i = 2, #ARGV, 2 do
  redis.call('HINCRBY', minute, ARGV[i], ARGV[i + 1])
end
redis.call('PEXPIRE', minute, 3600000)
return (#ARGV - 1) / 2
