#!lua flags=allow-oom
-- Enters an agent that is in a call under its worker, or says that it is still there (its heartbeat). Restores the entry
-- of an agent that the server lost; not that of one that is being replaced.
-- KEYS  1 workers, 2 agents, 3 beats, 4 recoveries
-- ARGV  1 agent, 2 entry (JSON), 3 ms that the registry lives without a heartbeat
-- Returns 1, or 0 if the agent is being replaced
--@include room
if redis.call('HEXISTS', KEYS[4], ARGV[1]) == 1 then
  return 0
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[3], digits(clock()), ARGV[1])
for i = 1, 3 do
  redis.call('PEXPIRE', KEYS[i], ARGV[3])
end
return 1
