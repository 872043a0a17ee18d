#!lua
-- An operator's decision: sets or removes one entry of a permanent hash, and tells all processes.
-- KEYS  overrides or blocked
-- ARGV  1 name, 2 value ('' removes), 3 channel of all processes
-- Returns 1 if that changed anything
local before = redis.call('HGET', KEYS[1], ARGV[1])
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
redis.call('SPUBLISH', ARGV[3], 'control')
return (before or '') ~= ARGV[2] and 1 or 0
