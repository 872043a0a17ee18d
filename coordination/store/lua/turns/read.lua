#!lua flags=no-writes
-- Reads the turns in the order in which they were said.
-- KEYS  1 turns, 2 order
-- ARGV  1 '-' for all, or the id behind which to begin
-- Returns {id, '<server time> <JSON>', seconds played ('~' behind them: it has not ended) or '', ...}
local from = ARGV[1] == '-' and '-' or '(' .. ARGV[1]
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYLEX', KEYS[2], from, '+')) do
  local values = redis.call('HMGET', KEYS[1], 'turn:' .. id, 'played:' .. id)
  if values[1] then
    found[#found + 1] = id
    found[#found + 1] = values[1]
    found[#found + 1] = values[2] or ''
  end
end
return found
