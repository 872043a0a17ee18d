#!lua
-- Asks an agent to leave its call to another one, when it can. It learns of it with its next heartbeat, which the message
-- brings forward.
--
-- KEYS  1 roster, 2 events
-- ARGV  1 agent, 2 reason, 3 channel of everyone
-- Returns 1, or 0 if the agent is not on the roster

--@include room

local stored = redis.call('HGET', KEYS[1], ARGV[1])
if not stored then
  return 0
end
redis.call('HSET', KEYS[1], '{asked}' .. ARGV[1], ARGV[2])
record(KEYS[2], clock(), 'ask', ARGV[1], cjson.decode(stored).role, '', ARGV[2])
tell(ARGV[3], 'roster')
return 1
