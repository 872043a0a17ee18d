#!lua
-- Puts an agent on the roster of a room; with a claim, only if no live agent serves its role. Repeating it is harmless.
--
-- KEYS  1 roster, 2 beats, 3 events, 4.. every key of the room
-- ARGV  1 agent, 2 member (JSON, strings only), 3 claim (1 or 0), 4 prefix of the processes' channels,
--       5 channel of everyone, 6 ms that a room lives beyond a heartbeat, 7 µs until an agent is doubted,
--       8 µs until it is dead, 9 µs that a replaced agent is refused for
-- Returns {'ok', joined at (µs)}, {'removed', ''}, {'elsewhere', process} or {'taken', agent}

--@include room
--@include roster

local keys = { roster = KEYS[1], beats = KEYS[2], events = KEYS[3] }
local agent, member = ARGV[1], cjson.decode(ARGV[2])
local now = clock()
local verdict, by = admit(keys, agent, member, ARGV[3] == '1', ARGV[4], now, tonumber(ARGV[7]), tonumber(ARGV[8]),
  tonumber(ARGV[9]))
if verdict ~= 'ok' then
  keep(keys.events, keys.roster, ARGV[6])
  return { verdict, by }
end

local stored = redis.call('HGET', keys.roster, agent)
local before = stored and cjson.decode(stored)
local again = before and before.process == member.process
member.joined_at = again and before.joined_at or digits(now)
redis.call('HSET', keys.roster, agent, cjson.encode(member))
redis.call('HDEL', keys.roster, '{ended}')
redis.call('ZADD', keys.beats, digits(now), agent)
if not again then
  record(keys.events, now, 'join', agent, member.role, '', '')
end
keep_all(4, ARGV[6])
tell(ARGV[5], 'roster')
return { 'ok', member.joined_at }
