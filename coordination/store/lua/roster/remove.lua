#!lua flags=allow-oom
-- Takes an agent off the roster from outside and refuses it for a while, on the roster or not. Repeating it is harmless.
--
-- KEYS  1 roster, 2 beats, 3 events
-- ARGV  1 agent, 2 reason, 3 channel of everyone, 4 µs that it is refused for, 5 ms that the keys live if nobody keeps
--       a roster
-- Returns 1 if it was on the roster, else 0

--@include room
--@include roster

local now = clock()
local stored = redis.call('HGET', KEYS[1], ARGV[1])
expel(KEYS[1], KEYS[2], ARGV[1], now + ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5], 'NX')
if stored then
  record(KEYS[3], now, 'remove', ARGV[1], cjson.decode(stored).role, '', ARGV[2])
  keep(KEYS[3], KEYS[1], ARGV[5])
end
tell(ARGV[3], 'roster')
return stored and 1 or 0
