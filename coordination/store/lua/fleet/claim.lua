#!lua
-- Claims the recovery of one lost agent, or renews the own claim: one process at a time replaces it. What the one before
-- had done is handed on, so that an agent that was dispatched already is not dispatched again.
-- KEYS  1 workers, 2 agents, 3 beats, 4 recoveries
-- ARGV  1 agent, 2 process, 3 µs that the claim lasts, 4 µs from now until a dispatch that was just made may still come,
--       or '' for none, 5 ms that the registry lives without a heartbeat
-- Returns {1, µs until a dispatch of an earlier claimant counts as lost, or 0}; {0, 0} if another process is at it, or
--   the agent is not on the registry any more
--@include room
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then
  return {0, 0}
end
local now = clock()
local stored = redis.call('HGET', KEYS[4], ARGV[1])
local claim = stored and cjson.decode(stored) or { coming = '0' }
if stored and claim.by ~= ARGV[2] and tonumber(claim['until']) > now then
  return {0, 0}
end
local coming = tonumber(claim.coming)
if ARGV[4] ~= '' then
  coming = now + tonumber(ARGV[4])
end
redis.call('HSET', KEYS[4], ARGV[1],
  cjson.encode({ by = ARGV[2], ['until'] = digits(now + ARGV[3]), coming = digits(coming) }))
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, ARGV[5])
end
return {1, math.max(0, coming - now)}
