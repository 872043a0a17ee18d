#!lua flags=allow-oom
-- Corrects what a reservation took by what was really used: less goes back, more becomes debt. Its slots are free again.
-- KEYS  own, waiters, tenants, granted, fair
-- ARGV  1 base of the keys, 2 process, 3 moment of the admission, 4 us after which nothing is given back any more,
--       5.. 'r', field, difference in us; or 's', set, id
-- Returns {number waiting, us until the next look, 1 if the caller is to pump then}
--@include buckets
--@include queue
local now = clock()
local open = now <= ARGV[3] + ARGV[4]
for i = 5, #ARGV, 3 do
  if ARGV[i] == 's' then
    redis.call('ZREM', ARGV[1] .. ARGV[i + 1], ARGV[i + 2])
  else
    local difference = tonumber(ARGV[i + 2])
    if difference > 0 then
      local before = level(ARGV[i + 1])
      set_level(ARGV[i + 1], before, math.max(before, now) + difference, now)
    elseif open then
      give_back(ARGV[i + 1], -difference, now)
    end
  end
end
return {let_in(ARGV[2], now)}
