#!lua
-- Records how many seconds of a turn have been played, and whether it has ended.
-- KEYS  1 turns, 2 order
-- ARGV  1 channel of everyone, 2 turn id, 3 seconds, 4 '1' if it has ended
-- Returns 1, or 0 if the turn is not in the log
--@include room
if not redis.call('ZSCORE', KEYS[2], ARGV[2]) then
  return 0
end
-- A turn under way tells nobody: who watches the log wants to know what was said, not how far it is.
redis.call('HSET', KEYS[1], 'played:' .. ARGV[2], ARGV[4] == '1' and ARGV[3] or ARGV[3] .. '~')
if ARGV[4] ~= '1' then
  return 1
end
tell(ARGV[1], 'turns')
return 1
