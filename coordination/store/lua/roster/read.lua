#!lua flags=no-writes
-- The roster as it is now.
--
-- KEYS  1 roster, 2 beats
-- Returns {server time (µs), {field, value, ...} of the roster, {agent, last heartbeat (µs), ...}}

--@include room

return { digits(clock()), redis.call('HGETALL', KEYS[1]), redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES') }
