#!lua
-- Notes that turns are on their way to the backend, so that nobody saves them again. Turns that are gone are left out.
-- KEYS  1 turns, 2 order
-- ARGV  turn ids
-- Returns how many were noted
local noted = 0
for _, id in ipairs(ARGV) do
  if redis.call('ZSCORE', KEYS[2], id) then
    redis.call('HSET', KEYS[1], 'saved:' .. id, '1')
    noted = noted + 1
  end
end
return noted
