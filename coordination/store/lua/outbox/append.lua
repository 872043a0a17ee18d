#!lua
-- Appends an item to its conversation. Repeated after a lost reply it may lie there twice, one behind the other: both
-- carry the same key, under which the backend saves it once.
-- KEYS  1 due
-- ARGV  1 prefix of the conversations' streams, 2 conversation, 3 item (JSON)
-- Returns 1
--@include outbox
append(ARGV[1], KEYS[1], ARGV[2], ARGV[3])
return 1
