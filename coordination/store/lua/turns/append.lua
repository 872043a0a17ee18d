#!lua
-- Appends a turn under a fence that the agent holds or held. Safe to repeat with the same key. An older fence than the
-- floor's may still write: an utterance belongs to whoever held the floor when it began, and sorts before the turns of
-- the next holder.
-- KEYS  1 turns, 2 order, 3 roster, 4 lease of the floor, 5 events
-- ARGV  1 channel of everyone, 2 fence, 3 idempotency key, 4 agent, 5 turn (JSON without id and time), 6 most turns kept,
--       7 most bytes kept, 8 ms to live without a roster, 9 highest sequence number that the caller knows of this fence
-- Returns {1, id, '<server time> <key> <JSON>', moment up to which turns were erased or ''}, or {0, current fence} if that
-- fence was not this agent's
--@include room
local erased = redis.call('HGET', KEYS[1], 'forgotten') or ''
local known = redis.call('HGET', KEYS[1], 'key:' .. ARGV[3])
if known then
  return {1, known, redis.call('HGET', KEYS[1], 'turn:' .. known), erased}
end

-- Whether the floor was granted to this agent under this fence: by the lease, else by the recorded grants.
local function was_granted(floor)
  if floor[1] == ARGV[2] and floor[2] then
    return floor[2] == ARGV[4]
  end
  for _, entry in ipairs(redis.call('XREVRANGE', KEYS[5], '+', '-', 'COUNT', 300)) do
    local event = {}
    for i = 1, #entry[2], 2 do event[entry[2][i]] = entry[2][i + 1] end
    if event.kind == 'grant' and event.fence == ARGV[2] then
      return event.agent == ARGV[4]
    end
  end
  return false
end

-- Drops the oldest turn with all that belongs to it; returns its size.
local function evict()
  local id = redis.call('ZPOPMIN', KEYS[2])[1]
  local stored = redis.call('HGET', KEYS[1], 'turn:' .. id) or ''
  local key = string.match(stored, '^%d+ (%S+) ')
  redis.call('HDEL', KEYS[1], 'turn:' .. id, 'played:' .. id, 'saved:' .. id, 'key:' .. (key or ''))
  local oldest = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  local fence = string.match(id, '^(%d+)%-')
  if not oldest or string.match(oldest, '^(%d+)%-') ~= fence then
    redis.call('HDEL', KEYS[1], 'seq:' .. fence)
  end
  return #stored
end

local floor = redis.call('HMGET', KEYS[4], 'f', 'agent')
if not was_granted(floor) then
  return {0, tonumber(floor[1] or 0)}
end
local fence = string.format('%016.0f', tonumber(ARGV[2]))
local known_seq = tonumber(ARGV[9] or 0)
if known_seq > tonumber(redis.call('HGET', KEYS[1], 'seq:' .. fence) or 0) then
  -- A server that came back empty: the numbers of what it has forgotten are taken.
  redis.call('HSET', KEYS[1], 'seq:' .. fence, known_seq)
end
local id = fence .. string.format('-%06d', redis.call('HINCRBY', KEYS[1], 'seq:' .. fence, 1))
local stored = digits(clock()) .. ' ' .. ARGV[3] .. ' ' .. ARGV[5]
redis.call('HSET', KEYS[1], 'turn:' .. id, stored, 'key:' .. ARGV[3], id)
redis.call('ZADD', KEYS[2], 0, id)
local bytes, count = redis.call('HINCRBY', KEYS[1], 'bytes', #stored), redis.call('ZCARD', KEYS[2])
while count > 1 and (count > tonumber(ARGV[6]) or bytes > tonumber(ARGV[7])) do
  bytes = redis.call('HINCRBY', KEYS[1], 'bytes', -evict())
  count = count - 1
end
keep(KEYS[1], KEYS[3], ARGV[8])
keep(KEYS[2], KEYS[3], ARGV[8])
tell(ARGV[1], 'turns')
return {1, id, stored, erased}
