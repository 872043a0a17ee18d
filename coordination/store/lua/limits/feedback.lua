#!lua flags=allow-oom
-- What a provider said of its own budget: buckets are never fuller than that, whatever is given back later. Only ever
-- tightens.
-- KEYS  own, waiters, tenants, granted, fair
-- ARGV  1 base of the keys, 2.. field, us from now to the moment at which the bucket is full again, at the earliest
-- Returns how many buckets were corrected
--@include buckets
local now, many = clock(), 0
for i = 2, #ARGV, 2 do
  local before, after = level(ARGV[i]), now + ARGV[i + 1]
  if after > before then
    set_level(ARGV[i], before, after, now)
    many = many + 1
  end
  local said = ARGV[i] .. FLOOR
  if after > tonumber(redis.call('HGET', KEYS[1], said) or 0) then redis.call('HSET', KEYS[1], said, digits(after)) end
end
return many
