-- What the outbox scripts share. `due` is a sorted set: conversation -> the server's time in microseconds when it may
-- be claimed. `claims` is a hash: `t:<conversation>` -> token of the claim, `n:<conversation>` -> attempts in vain.
local function clock()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

local function append(prefix, due, conversation, item)
  redis.call('XADD', prefix .. conversation, '*', 'item', item)
  redis.call('ZADD', due, 'NX', string.format('%.0f', clock()), conversation)
end

-- Forgets a conversation without items.
local function drop_empty(prefix, due, claims, conversation)
  if redis.call('XLEN', prefix .. conversation) == 0 then
    redis.call('ZREM', due, conversation)
    redis.call('HDEL', claims, 't:' .. conversation, 'n:' .. conversation)
    return true
  end
  return false
end

-- A stream whose last entry is gone would stay as an empty key.
local function remove(stream, id)
  local removed = redis.call('XDEL', stream, id)
  if removed == 1 and redis.call('XLEN', stream) == 0 then
    redis.call('DEL', stream)
  end
  return removed
end
