#!lua
-- What operators decided: limits that are set at run time, and tenants that are blocked. Both keys are permanent.
-- KEYS  overrides, blocked
-- Returns {overrides, blocked}, each a flat list of names and values
return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2])}
