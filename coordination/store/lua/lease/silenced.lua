#!lua flags=allow-oom
-- Says that a condemned holder is silent at the media server: only now its lease may be granted to somebody else.
-- KEYS  lease, queue, waiters, cancelled, events
-- ARGV  1 channel prefix, 2 channel of everyone, 3 record events, 4 fence of the condemned holder, 5 how it was silenced
-- Returns {1 if it was freed, fence of the next grant or 0, us of its provisional window}
--@include lease
local now = clock()
local h = redis.call('HMGET', KEYS[1], 'f', 'rid', 'agent', 'condemned', 'n', 'role')
if h[1] ~= ARGV[4] or not h[2] or h[4] ~= '1' then
  return {0, 0, 0}
end
vacate()
record('silence', h[3], tonumber(h[1]), h[6], ARGV[5], now)
local fence = h[5] == '1' and grant_next(now, tonumber(h[1]), '') or 0
return {1, fence or 0, PROVISIONAL}
