#!lua
-- Appends a turn under a fence. Safe to repeat with the same key. An older fence than the floor's may still write: an
-- utterance belongs to whoever held the floor when it began, and sorts before the turns of the next holder.
-- KEYS  1 turns, 2 order, 3 roster, 4 lease of the floor
-- ARGV  1 channel of everyone, 2 fence, 3 idempotency key, 4 turn (JSON without id, seq and time), 5 most turns kept,
--       6 ms to live without a roster
-- Returns {1, id, server time}, or {0, current fence} if that fence was never granted
--@include room
local known = redis.call('HGET', KEYS[1], 'key:' .. ARGV[3])
if known then
  return {1, known, 0}
end
local floor = tonumber(redis.call('HGET', KEYS[4], 'f') or 0)
if tonumber(ARGV[2]) > floor then
  return {0, floor}
end
local now = clock()
local seq = redis.call('HINCRBY', KEYS[1], 'seq:' .. ARGV[2], 1)
local id = string.format('%016.0f-%06d', tonumber(ARGV[2]), seq)
redis.call('HSET', KEYS[1], 'turn:' .. id, digits(now) .. ' ' .. ARGV[4], 'key:' .. ARGV[3], id)
redis.call('ZADD', KEYS[2], 0, id)
local excess = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[5])
if excess > 0 then
  for _, old in ipairs(redis.call('ZRANGE', KEYS[2], 0, excess - 1)) do
    redis.call('HDEL', KEYS[1], 'turn:' .. old, 'played:' .. old)
  end
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, excess - 1)
end
keep(KEYS[1], KEYS[3], ARGV[6])
keep(KEYS[2], KEYS[3], ARGV[6])
tell(ARGV[1], 'turns')
return {1, id, now}
