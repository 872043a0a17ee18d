#!lua flags=allow-oom
-- Takes an agent off the registry: it has left its call, or has been replaced. One that is being replaced cannot do it
-- itself: whoever replaces it does.
-- KEYS  1 workers, 2 agents, 3 beats, 4 recoveries
-- ARGV  1 agent, 2 '1' if it has been replaced
-- Returns 1 if it was there, else 0
if ARGV[2] ~= '1' and redis.call('HEXISTS', KEYS[4], ARGV[1]) == 1 then
  return 0
end
redis.call('HDEL', KEYS[4], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return redis.call('HDEL', KEYS[2], ARGV[1])
