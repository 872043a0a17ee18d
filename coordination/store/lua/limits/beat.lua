#!lua flags=allow-oom
-- A process's sign of life: renews the slots that it holds. A slot that ran out is not renewed: another may have it.
-- KEYS  own, waiters, tenants, granted, fair
-- ARGV  1 base of the keys, 2 process, 3.. set and id of each slot
-- Returns {processes that use the provider, index of each slot that is lost, from 0 ...}
--@include buckets
local now = clock()
local beats = ARGV[1] .. 'beats'
redis.call('ZADD', beats, digits(now), ARGV[2])
redis.call('ZREMRANGEBYSCORE', beats, '-inf', digits(now - SLICE))
redis.call('PEXPIRE', beats, KEEP)
local reply = {redis.call('ZCARD', beats)}
for i = 3, #ARGV, 2 do
  local key = ARGV[1] .. ARGV[i]
  local ends = redis.call('ZSCORE', key, ARGV[i + 1])
  if ends and tonumber(ends) > now then
    redis.call('ZADD', key, digits(now + SLOT_LIFE), ARGV[i + 1])
    redis.call('PEXPIRE', key, SLOT_LIFE / 1000 + 1000)
  else
    reply[#reply + 1] = (i - 3) / 2
  end
end
return reply
