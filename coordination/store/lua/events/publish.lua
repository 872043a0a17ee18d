#!lua
-- Records an event of the application.
-- KEYS  1 events, 2 roster
-- ARGV  1 channel of everyone, 2 kind, 3 agent, 4 role, 5 fence, 6 reason, 7 ms to live without a roster
-- Returns the server time of the event
--@include room
local now = clock()
record(KEYS[1], now, ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6])
keep(KEYS[1], KEYS[2], ARGV[7])
tell(ARGV[1], 'events')
return now
