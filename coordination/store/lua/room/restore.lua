#!lua
-- Puts back what a server that came back empty or older has forgotten of a room: context and turns that are missing,
-- never over what is there, and never what was erased. The floor's holder alone may. Safe to repeat.
-- KEYS  1 context, 2 turns, 3 order, 4 roster, 5 lease of the floor
-- ARGV  1 channel of everyone, 2 fence of the holder, 3 version of the context or 0, 4 its document, 5 ms to live without
--       a roster, then for each turn: id, '<server time> <key> <JSON>', seconds played or ''
-- Returns {1, 1 if the context was put back, number of turns put back}, or {0} if that fence is not the current one
--@include room
local floor = redis.call('HMGET', KEYS[5], 'f', 'rid', 'condemned')
if floor[1] ~= ARGV[2] or not floor[2] or floor[3] == '1' then
  return {0}
end

local erased = tonumber(redis.call('HGET', KEYS[2], 'forgotten') or 0)
local restored = 0
if tonumber(ARGV[3]) > math.max(erased, tonumber(redis.call('HGET', KEYS[1], 'version') or 0)) then
  redis.call('HSET', KEYS[1], 'version', ARGV[3], 'document', ARGV[4], 'write', '')
  local left = redis.call('PTTL', KEYS[4])
  redis.call('PEXPIRE', KEYS[1], left > 0 and left or ARGV[5])
  tell(ARGV[1], 'context')
  restored = 1
end

local turns = 0
for i = 6, #ARGV, 3 do
  local id, stored, played = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local at, key = string.match(stored, '^(%d+) (%S+) ')
  local known = redis.call('HEXISTS', KEYS[2], 'turn:' .. id) == 1 or redis.call('HEXISTS', KEYS[2], 'key:' .. key) == 1
  if tonumber(at) > erased and not known then
    local fence, seq = string.match(id, '^(%d+)%-(%d+)$')
    redis.call('HSET', KEYS[2], 'turn:' .. id, stored, 'key:' .. key, id)
    if played ~= '' then redis.call('HSET', KEYS[2], 'played:' .. id, played) end
    if tonumber(seq) > tonumber(redis.call('HGET', KEYS[2], 'seq:' .. fence) or 0) then
      redis.call('HSET', KEYS[2], 'seq:' .. fence, tonumber(seq))
    end
    redis.call('HINCRBY', KEYS[2], 'bytes', #stored)
    redis.call('ZADD', KEYS[3], 0, id)
    turns = turns + 1
  end
end
if turns > 0 then
  keep(KEYS[2], KEYS[4], ARGV[5])
  keep(KEYS[3], KEYS[4], ARGV[5])
  tell(ARGV[1], 'turns')
end
return {1, restored, turns}
