#!lua
-- Removes what was said and agreed in a room so far, for good: copies that processes hold are not put back any more.
-- The call itself goes on. Safe to repeat.
-- KEYS  1 context, 2 turns, 3 order, 4 roster
-- ARGV  1 channel of everyone, 2 ms to live without a roster
-- Returns the moment (microseconds of the server's clock, as text) up to which everything is erased
--@include room
-- What was written while the clock was ahead is erased as well.
local at = math.max(clock(), tonumber(redis.call('HGET', KEYS[1], 'version') or 0))
local kept = {}
local fields = redis.call('HGETALL', KEYS[2])
for i = 1, #fields, 2 do
  local kind = string.match(fields[i], '^(%a+):')
  if kind == 'turn' then
    at = math.max(at, tonumber(string.match(fields[i + 1], '^%d+')))
  elseif kind == 'seq' then
    -- Numbers are not given out again: whoever remembers one would take the new turn for the old.
    kept[#kept + 1] = fields[i]
    kept[#kept + 1] = fields[i + 1]
  end
end

redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('HSET', KEYS[2], 'forgotten', digits(at), unpack(kept))
keep(KEYS[2], KEYS[4], ARGV[2])
for _, kind in ipairs({'forgotten', 'context', 'turns'}) do tell(ARGV[1], kind) end
return digits(at)
