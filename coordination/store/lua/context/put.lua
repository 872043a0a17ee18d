#!lua
-- Replaces a context document if it is at the expected version, and the fence that comes along is the current one.
-- Safe to repeat with the same write id.
-- KEYS  1 context, 2 roster, 3 lease of the floor
-- ARGV  1 channel of everyone, 2 expected version, 3 document (JSON), 4 highest version seen, 5 fence or '',
--       6 ms to live without a roster, 7 write id
-- Returns {1, version}; {0, current version}; {2, current fence} if the fence is old
--@include room
local h = redis.call('HMGET', KEYS[1], 'version', 'write')
local version = tonumber(h[1] or 0)
if h[2] == ARGV[7] then
  return {1, version}
end
if ARGV[5] ~= '' then
  local fence = redis.call('HMGET', KEYS[3], 'f', 'rid')
  if fence[1] ~= ARGV[5] or not fence[2] then
    return {2, tonumber(fence[1] or 0)}
  end
end
if version ~= tonumber(ARGV[2]) then
  return {0, version}
end
local newer = math.max(clock(), version + 1, tonumber(ARGV[4]) + 1)
redis.call('HSET', KEYS[1], 'version', digits(newer), 'document', ARGV[3], 'write', ARGV[7])
-- Each write gives the document its whole life again; in a room with agents, that of the room.
local left = redis.call('PTTL', KEYS[2])
redis.call('PEXPIRE', KEYS[1], left > 0 and left or ARGV[6])
tell(ARGV[1], 'context')
return {1, newer}
