#!lua flags=allow-oom
-- Renews a lease; the first renewal of a pushed grant confirms it. Also the claim of a holder after the server came
-- back empty or older.
-- KEYS  lease, queue, waiters, cancelled, events
-- ARGV  1 channel prefix, 2 channel of everyone, 3 record events, 4 request id, 5 agent, 6 process, 7 role, 8 ttl (us),
--       9 fence, 10 highest fence seen
-- Returns {1, fence, server time, ''} or {0, current fence, server time, current holder} if the lease is lost
--@include lease
local rid, ttl, fence, seen = ARGV[4], tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local now = clock()
local h = redis.call('HMGET', KEYS[1], 'f', 'rid', 'agent', 'closed', 'condemned', 'ch')
local last = tonumber(h[1] or 0)

if h[2] == rid then
  if h[5] == '1' then
    return {0, last, now, ''}
  end
  if seen > last then
    last = fence_after(now, last, seen)
    record('grant', ARGV[5], last, ARGV[7], 'higher fence seen', now)
  end
  redis.call('HSET', KEYS[1], 'f', int(last), 'until', int(now + ttl), 'prov', '0')
  keep(ttl)
  return {1, last, now, ''}
end

local older = last < fence
-- Closed while somebody holds it: an older state brought that holder back, and a request told of this higher fence.
local claimable = last == fence and tonumber(h[4] or 0) > now
if older or claimable then
  if h[2] then
    -- A holder that a backup brought back: it was replaced before, and is told so.
    redis.call('SPUBLISH', ARGV[1] .. h[6], 'lost ' .. h[2] .. ' ' .. int(fence) .. ' superseded')
  end
  local claimed = seen > fence and fence_after(now, fence, seen) or fence
  install(now, claimed, rid, ARGV[5], ARGV[6], ARGV[7], ttl, 0)
  return {1, claimed, now, ''}
end
return {0, last, now, h[3] or ''}
