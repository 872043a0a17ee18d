#!lua flags=allow-oom
-- Takes an agent off the roster, if its own process asks. After the last live member everything of the room goes soon.
--
-- KEYS  1 roster, 2 beats, 3 events, 4.. every key of the room
-- ARGV  1 agent, 2 process, 3 channel of everyone, 4 ms that the room lives on after the last member,
--       5 µs until an agent without a heartbeat is dead
-- Returns 1 if it was on the roster, else 0

--@include room
--@include roster

local stored = redis.call('HGET', KEYS[1], ARGV[1])
local member = stored and cjson.decode(stored)
if not member or member.process ~= ARGV[2] then
  return 0
end
local now = clock()
redis.call('HDEL', KEYS[1], ARGV[1], '{asked}' .. ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
record(KEYS[3], now, 'leave', ARGV[1], member.role, '', '')
keep(KEYS[3], KEYS[1], ARGV[4])
if redis.call('ZCOUNT', KEYS[2], digits(now - ARGV[5]), '+inf') == 0 then
  -- The mark keeps the key, and with it the lifetime that late writes into the room take over.
  redis.call('HSET', KEYS[1], '{ended}', digits(now))
  keep_all(4, ARGV[4])
end
tell(ARGV[3], 'roster')
return 1
