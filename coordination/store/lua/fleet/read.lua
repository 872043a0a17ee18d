#!lua flags=no-writes
-- The registry as it is now.
-- KEYS  1 workers, 2 agents, 3 beats
-- Returns {server time (µs), {worker, last heartbeat (µs), ...}, {agent, entry (JSON), ...}, {agent, last heartbeat, ...}}
--@include room
return { digits(clock()), redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), redis.call('HGETALL', KEYS[2]),
  redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES') }
