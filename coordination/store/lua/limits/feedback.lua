#!lua flags=allow-oom
-- What a provider said of its own budget: buckets are never fuller than that, whatever is given back later. Only ever
-- tightens.
-- KEYS  own, waiters, tenants, granted, fair
-- ARGV  1 base of the keys, 2.. hash, field, us from now to the moment at which the bucket is full again, at the earliest
-- Returns how many buckets were corrected
--@include buckets
local now, many = clock(), 0
for i = 2, #ARGV, 3 do
  local before, after = level(ARGV[i], ARGV[i + 1]), now + ARGV[i + 2]
  if after > before then
    set_level(ARGV[i], ARGV[i + 1], before, after, now)
    many = many + 1
  end
  local key, said = ARGV[1] .. ARGV[i], ARGV[i + 1] .. FLOOR
  if after > tonumber(redis.call('HGET', key, said) or 0) then redis.call('HSET', key, said, digits(after)) end
end
return many
