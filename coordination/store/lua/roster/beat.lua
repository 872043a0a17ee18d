#!lua flags=allow-oom
-- A heartbeat: says that the agent lives and in which state, and keeps every key of the room. Puts the agent back if
-- the server lost it (restarted empty), unless it was removed or its role was given to another meanwhile.
--
-- KEYS  1 roster, 2 beats, 3 events, 4.. every key of the room
-- ARGV  as for roster/join
-- Returns {'ok', why it is asked to leave or ''}, {'restored', ''}, {'removed', ''}, {'elsewhere', process} or {'taken', agent}

--@include room
--@include roster

local keys = { roster = KEYS[1], beats = KEYS[2], events = KEYS[3] }
local agent, member = ARGV[1], cjson.decode(ARGV[2])
local now = clock()
local stored = redis.call('HGET', keys.roster, agent)
local known = stored and cjson.decode(stored)

local verdict = 'ok'
if not known or known.process ~= member.process then
  local by
  verdict, by = admit(keys, agent, member, ARGV[3] == '1', ARGV[4], now, tonumber(ARGV[7]), tonumber(ARGV[8]),
    tonumber(ARGV[9]))
  if verdict ~= 'ok' then
    keep(keys.events, keys.roster, ARGV[6])
    return { verdict, by }
  end
  verdict = 'restored'
end

redis.call('ZADD', keys.beats, digits(now), agent)
if verdict == 'restored' or known.state ~= member.state then
  redis.call('HSET', keys.roster, agent, cjson.encode(member))
  redis.call('HDEL', keys.roster, '{ended}')
  tell(ARGV[5], 'roster')
end
-- Whoever was silent for as long as a room lives without anybody is no member any more.
local silent = redis.call('ZRANGE', keys.beats, '-inf', '(' .. digits(now - ARGV[6] * 1000), 'BYSCORE')
for _, other in ipairs(silent) do
  redis.call('HDEL', keys.roster, other)
  redis.call('ZREM', keys.beats, other)
end
keep_all(4, ARGV[6])
return { verdict, redis.call('HGET', keys.roster, '{asked}' .. agent) or '' }
