#!lua flags=no-writes
-- The workers of the fleet, without their agents: what the watch looks at twenty times a second.
-- KEYS  1 workers
-- Returns {server time (µs), {worker, last heartbeat (µs), ...}}
--@include room
return { digits(clock()), redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES') }
