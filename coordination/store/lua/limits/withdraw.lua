#!lua flags=allow-oom
-- Takes a request back: out of the queue, which costs nothing; or, if it was admitted a moment before, off its buckets.
-- KEYS  own, waiters, tenants, granted, fair
-- ARGV  1 base of the keys, 2 request id, 3 process, 4 tenant, 5 number of values of the first variant, 6.. checks
-- Returns {number waiting, us until the next look, 1 if the caller is to pump then}
--@include buckets
--@include queue
local now = clock()
local rid, tenant, split = ARGV[2], ARGV[4], 5 + ARGV[5]
local known = redis.call('HGET', KEYS[2], rid)
if known then
  leave(tenant, string.match(known, '^[^\t]+'), rid)
  if redis.call('ZCARD', queue_of(tenant)) == 0 then redis.call('ZREM', KEYS[3], tenant) end
  recount()
end
for variant = 1, 2 do
  if redis.call('ZREM', KEYS[4], rid .. ' ' .. variant) == 1 then
    for i = variant == 1 and 6 or split + 1, variant == 1 and split or #ARGV, 4 do
      if ARGV[i] == 's' then
        redis.call('ZREM', ARGV[1] .. ARGV[i + 1], ARGV[i + 3])
      else
        give_back(ARGV[i + 1], ARGV[i + 2], now)
      end
    end
  end
end
return {let_in(ARGV[3], now)}
