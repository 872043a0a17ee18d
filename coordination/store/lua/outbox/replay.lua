#!lua
-- Puts an item that was set aside back at the end of its conversation. Safe to repeat.
-- KEYS  1 due, 2 set aside
-- ARGV  1 prefix of the conversations' streams, 2 id of the entry that was set aside, 3 conversation
-- Returns 1, or 0 if it is not there any more
--@include outbox
local entry = redis.call('XRANGE', KEYS[2], ARGV[2], ARGV[2])[1]
if not entry then
  return 0
end
append(ARGV[1], KEYS[1], ARGV[3], entry[2][2])
remove(KEYS[2], ARGV[2])
return 1
