#!lua
-- Removes entries of one stream of the outbox: of a conversation, or of what was set aside.
-- KEYS  1 due, 2 claims, 3 set aside
-- ARGV  1 prefix of the conversations' streams, 2 conversation or '' for what was set aside, 3... ids of entries
-- Returns how many were there
--@include outbox
local stream, removed = ARGV[2] == '' and KEYS[3] or ARGV[1] .. ARGV[2], 0
for i = 3, #ARGV do
  removed = removed + remove(stream, ARGV[i])
end
if ARGV[2] ~= '' then
  drop_empty(ARGV[1], KEYS[1], KEYS[2], ARGV[2])
end
return removed
