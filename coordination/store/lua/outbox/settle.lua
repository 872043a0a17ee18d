#!lua
-- Acknowledges what was delivered, sets a poison item aside, and ends the claim. What was delivered is removed even if
-- the claim has passed to another drainer meanwhile. Safe to repeat.
-- KEYS  1 due, 2 claims, 3 set aside
-- ARGV  1 prefix of the conversations' streams, 2 conversation, 3 token, 4 microseconds until the next attempt or -1,
--       5 attempts, 6 id of the poison entry or '', 7 reason, 8... ids of the delivered entries
-- Returns 1 if the claim was still this drainer's, else 0
--@include outbox
local stream = ARGV[1] .. ARGV[2]
if ARGV[6] ~= '' then
  local entry = redis.call('XRANGE', stream, ARGV[6], ARGV[6])[1]
  if entry then
    redis.call('XADD', KEYS[3], '*', 'item', entry[2][2], 'reason', ARGV[7])
    remove(stream, ARGV[6])
  end
end
for i = 8, #ARGV do
  remove(stream, ARGV[i])
end
if redis.call('HGET', KEYS[2], 't:' .. ARGV[2]) ~= ARGV[3] then
  return 0
end
redis.call('HDEL', KEYS[2], 't:' .. ARGV[2])
if drop_empty(ARGV[1], KEYS[1], KEYS[2], ARGV[2]) then
  return 1
end
local wait = tonumber(ARGV[4])
if wait >= 0 then
  redis.call('HSET', KEYS[2], 'n:' .. ARGV[2], ARGV[5])
else
  redis.call('HDEL', KEYS[2], 'n:' .. ARGV[2])
end
redis.call('ZADD', KEYS[1], string.format('%.0f', clock() + math.max(wait, 0)), ARGV[2])
return 1
