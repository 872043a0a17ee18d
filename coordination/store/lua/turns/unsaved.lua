#!lua flags=no-writes
-- Reads the turns that nobody has noted as saved, in the order in which they were said.
-- KEYS  1 turns, 2 order
-- Returns as `turns/read`
local found = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  local values = redis.call('HMGET', KEYS[1], 'turn:' .. id, 'played:' .. id, 'saved:' .. id)
  if values[1] and not values[3] then
    found[#found + 1] = id
    found[#found + 1] = values[1]
    found[#found + 1] = values[2] or ''
  end
end
return found
