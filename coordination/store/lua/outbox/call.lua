#!lua
-- Notes a call that is being saved, so that somebody ends its record should its agents all be lost.
-- KEYS  1 calls
-- ARGV  1 what Redis knows the call by, 2 the call (JSON), 3 ms to live without another call
-- Returns 1 if it was not noted yet, else 0
local new = redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return new
