#!lua
-- Gives the oldest items of the conversation that has been due longest to one drainer.
-- KEYS  1 due, 2 claims
-- ARGV  1 prefix of the conversations' streams, 2 token, 3 microseconds that the claim lasts, 4 most items
-- Returns {conversation, attempts, {id, item, id, item, ...}}; or the microseconds until one is due, -1 if none waits
--@include outbox
local now = clock()
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if not first[1] then
  return -1
end
local conversation, due = first[1], tonumber(first[2])
if due > now then
  return due - now
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[3])), conversation)
redis.call('HSET', KEYS[2], 't:' .. conversation, ARGV[2])
local items = {}
for _, entry in ipairs(redis.call('XRANGE', ARGV[1] .. conversation, '-', '+', 'COUNT', ARGV[4])) do
  items[#items + 1] = entry[1]
  items[#items + 1] = entry[2][2]
end
return {conversation, tonumber(redis.call('HGET', KEYS[2], 'n:' .. conversation) or 0), items}
