#!lua
-- Moves a lease to a named agent, at an operator's word: the holder loses it in the same step.
-- Under rule 'silence' that is allowed only while nobody holds it; a holder is revoked first.
-- KEYS  lease, queue, waiters, cancelled, events
-- ARGV  1 channel prefix, 2 channel of everyone, 3 record events, 4 request id of the new holder, 5 agent, 6 process,
--       7 role, 8 ttl (us), 9 reason, 10 rule of expiry
-- Returns {1, fence, us of the provisional window}; {0, 0, 0} if the agent's process does not listen; {2, fence, us}
--   if it is held and must be revoked first
--@include lease
local now = clock()
local h = redis.call('HMGET', KEYS[1], 'f', 'rid', 'agent', 'ch', 'until')
if h[2] and ARGV[10] == 'silence' then
  return {2, tonumber(h[1]), math.max(0, tonumber(h[5]) - now)}
end
local fence = fence_after(now, tonumber(h[1] or 0), 0)
if push(now, fence, ARGV[4], ARGV[6], tonumber(ARGV[8])) == 0 then
  return {0, 0, 0}
end
if h[2] then
  redis.call('SPUBLISH', ARGV[1] .. h[4], 'lost ' .. h[2] .. ' ' .. h[1] .. ' revoked')
  record('revoke', h[3], tonumber(h[1]), '', ARGV[9], now)
end
install(now, fence, ARGV[4], ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8]), PROVISIONAL)
redis.call('HSET', KEYS[1], 'why', ARGV[9])
return {1, fence, PROVISIONAL}
