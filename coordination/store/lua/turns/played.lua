#!lua
-- Records how many seconds of a turn were played.
-- KEYS  1 turns, 2 order
-- ARGV  1 channel of everyone, 2 turn id, 3 seconds
-- Returns 1, or 0 if the turn is not in the log
--@include room
if not redis.call('ZSCORE', KEYS[2], ARGV[2]) then
  return 0
end
redis.call('HSET', KEYS[1], 'played:' .. ARGV[2], ARGV[3])
tell(ARGV[1], 'turns')
return 1
