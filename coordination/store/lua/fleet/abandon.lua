#!lua flags=allow-oom
-- Gives an agent up for lost while its call goes on: its process ends before the call does. Whoever watches takes the call
-- up at its next look; the agent can neither stay on the registry nor leave it by itself from here on.
-- KEYS  1 workers, 2 agents, 3 beats, 4 recoveries
-- ARGV  1 agent, 2 ms that the registry lives without a heartbeat
-- Returns 1, or 0 if the agent is not on the registry
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then
  return 0
end
if redis.call('HEXISTS', KEYS[4], ARGV[1]) == 0 then
  -- A claim that nobody has: it can be taken at once.
  redis.call('HSET', KEYS[4], ARGV[1], cjson.encode({ by = '', ['until'] = '0', coming = '0' }))
end
redis.call('ZADD', KEYS[3], '0', ARGV[1])
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, ARGV[2])
end
return 1
