#!lua
-- Asks for a lease: grants it, queues the request, or says why neither. Safe to repeat with the same request id.
-- KEYS  lease, queue, waiters, cancelled, events
-- ARGV  1 channel prefix, 2 channel of everyone, 3 record events, 4 request id, 5 agent, 6 process, 7 role, 8 ttl (us),
--       9 priority, 10 'wait' or 'try', 11 highest fence seen, 12 '1' if seen so recently that the server must know it,
--       13 us until the request gives up, 14 rule of expiry: 'free', or 'silence' (an expired holder must be silenced
--       first), 15 '1' if the caller's connection has settled, so that it may condemn an expired holder
-- Returns {status, fence, us until it is worth looking again, server time, holder, holder's ttl, number waiting}
--   status 1 granted, 2 queued, 3 taken, 4 cancelled, 5 suspect: silence the holder of `fence`, then say so; the third
--   is then the us until the holder's own deadline is over
--@include lease
local rid, agent, process, role = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local ttl, seen = tonumber(ARGV[8]), tonumber(ARGV[11])
local now = clock()
local h = redis.call('HMGET', KEYS[1], 'f', 'rid', 'agent', 'until', 'prov', 'n', 'cx', 'closed', 'condemned', 'ttl',
  'shut')
local last = tonumber(h[1] or 0)
local closed = tonumber(h[8] or 0)

if h[7] and tonumber(h[7]) > now and redis.call('ZSCORE', KEYS[4], rid) then
  return {4, 0, 0, now, '', 0, 0}
end

if h[2] == rid and h[9] ~= '1' then
  -- Repeated after a lost reply: the same grant and the same fence, unless the caller has seen a higher one since.
  local fence = seen > last and fence_after(now, last, seen) or last
  redis.call('HSET', KEYS[1], 'f', int(fence), 'until', int(now + ttl), 'prov', '0')
  keep(ttl)
  return {1, fence, ttl, now, agent, ttl, 0}
end

if seen > last and ARGV[12] == '1' then
  -- The server is empty or older than what was granted. Whoever holds the highest fence has a second to claim it.
  last, closed = seen, now + 1000000
  redis.call('HSET', KEYS[1], 'f', int(last), 'closed', int(closed))
  keep(1000000)
end

local held = h[2] and true or false
local lapsed = held and h[5] ~= '0' and tonumber(h[5]) <= now
local expired = held and not lapsed and tonumber(h[4]) <= now
if lapsed or (expired and ARGV[14] == 'free') then
  record('expire', h[3], last, '', lapsed and 'not taken' or 'expired', now)
  vacate()
  held, expired = false, false
end

if not held and closed <= now and h[6] ~= '1' then
  local fence = fence_after(now, last, seen)
  install(now, fence, rid, agent, process, role, ttl, 0)
  return {1, fence, ttl, now, agent, ttl, 0}
end

if ARGV[10] == 'wait' then
  local known = redis.call('HGET', KEYS[3], rid)
  local place = known and cjson.decode(known).place
  if not place then
    place = string.format('%017.0f:%s', now, rid)
    local newest = redis.call('ZREVRANGE', KEYS[2], 0, 0)[1]
    -- Arrivals within one microsecond, or behind a clock that stepped back, still queue in order.
    if newest and newest > place then
      local after = tonumber(string.match(newest, '^(%d+):')) + 1
      place = string.format('%017.0f:%s', after, rid)
    end
    redis.call('ZADD', KEYS[2], -tonumber(ARGV[9]), place)
  end
  local life = tonumber(ARGV[13])
  redis.call('HSET', KEYS[3], rid, cjson.encode({place = place, agent = agent, ch = process, role = role, ttl = ARGV[8],
    priority = ARGV[9], seen = ARGV[11], at = int(now), deadline = int(now + life)}))
  -- A waiting process looks again within the holder's TTL, and each look renews this.
  local outlive = math.ceil(2 * math.max(ttl, tonumber(h[10] or 0)) / 1000) + KEEP
  redis.call('PEXPIRE', KEYS[2], outlive)
  redis.call('PEXPIRE', KEYS[3], outlive)
  if h[6] ~= '1' then
    redis.call('HSET', KEYS[1], 'n', '1')
    redis.call('PEXPIRE', KEYS[1], outlive, 'NX')
    redis.call('PEXPIRE', KEYS[1], outlive, 'GT')
  end
end

if not held and closed <= now then
  local fence, winner = grant_next(now, last, ARGV[10] == 'wait' and rid or '')
  if winner == rid then
    return {1, fence, ttl, now, agent, ttl, 0}
  end
  if not winner and ARGV[10] == 'try' then
    fence = fence_after(now, last, seen)
    install(now, fence, rid, agent, process, role, ttl, 0)
    return {1, fence, ttl, now, agent, ttl, 0}
  end
  return {ARGV[10] == 'wait' and 2 or 3, fence or 0, PROVISIONAL, now, '', ttl, redis.call('ZCARD', KEYS[2])}
end

local waiting = redis.call('ZCARD', KEYS[2])
if expired then
  if ARGV[15] == '1' then
    -- From here on the holder cannot renew: nobody is removed from a call who still holds its floor.
    redis.call('HSET', KEYS[1], 'condemned', '1')
    return {5, last, math.max(0, tonumber(h[11] or h[4]) - now), now, h[3], tonumber(h[10]), waiting}
  end
  return {ARGV[10] == 'wait' and 2 or 3, last, 200000, now, h[3], tonumber(h[10]), waiting}
end
local again = held and (h[5] ~= '0' and tonumber(h[5]) or tonumber(h[4])) or closed
return {ARGV[10] == 'wait' and 2 or 3, last, again - now, now, h[3] or '', tonumber(h[10] or ARGV[8]), waiting}
