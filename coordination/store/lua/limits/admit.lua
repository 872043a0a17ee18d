#!lua
-- Admits a request against all limits of a provider at once, or refuses it, or queues it. All or nothing.
-- KEYS  own, waiters, tenants, granted, fair
-- ARGV  1 base of the keys, 2 request id, 3 process, 4 tenant, 5 priority, 6 us that it may wait (0: ask once), 7 what it
--       costs its tenant's share, 8 us that it may be admitted ahead, 9 number of values of the first variant,
--       10.. checks of the first variant (within the tenant's guarantees; may be none), then of the second
-- Returns {1 admitted, variant, moment of the admission, us until then}
--         {2 queued, us until the pump looks, 1 if the caller is to pump, place in the tenant's queue, index of the
--         check that is last to pass, us until it does}
--         {3 refused, index of that check, us until it passes}; an index counts checks of the second variant from 0
--@include quick
local split = 9 + ARGV[9]
local horizon, life = tonumber(ARGV[8]), tonumber(ARGV[6])

-- Within its guarantee a tenant passes all others; only its own go before it.
if split > 9 and admit_at_once(10, split, 0, base .. 'q:' .. ARGV[4]) then return {1, 1, now, 0} end
local at_once = admit_at_once(split + 1, #ARGV, life > 0 and horizon or 0)
if at_once then return {1, 2, at_once, at_once - now} end
--@include buckets
--@include queue
local waiting = redis.call('HGET', KEYS[1], 'n')
if split > 9 and (not waiting or redis.call('EXISTS', queue_of(ARGV[4])) == 0) then
  if passes_at(ARGV, 10, split, now) == now then
    take(ARGV, 10, split, now, now)
    return {1, 1, now, 0}
  end
end

local at, worst = passes_at(ARGV, split + 1, #ARGV, now)
if not waiting and (at == now or (life > 0 and at <= now + horizon)) then
  take(ARGV, split + 1, #ARGV, at, now)
  return {1, 2, at, at - now}
end
if not waiting and life == 0 then
  return {3, (worst - split - 1) / 4, at - now}
end

local rid, process, tenant = ARGV[2], ARGV[3], ARGV[4]
for variant = 1, 2 do
  local admitted = redis.call('ZSCORE', KEYS[4], rid .. ' ' .. variant)
  if admitted then
    return {1, variant, tonumber(admitted), math.max(admitted - now, 0)}
  end
end
local known = redis.call('HGET', KEYS[2], rid)
if not known then
  local place = string.format('%017.0f:%s', now, rid)
  local newest = redis.call('ZREVRANGE', queue_of(tenant), 0, 0)[1]
  -- Arrivals within one microsecond, or behind a clock that stepped back, still queue in order.
  if newest and newest > place then
    place = string.format('%017.0f:%s', tonumber(string.match(newest, '^(%d+):')) + 1, rid)
  end
  redis.call('ZADD', queue_of(tenant), -ARGV[5], place)
  local head = {place, digits(now + math.max(life, HORIZON)), process, tenant}
  redis.call('HSET', KEYS[2], rid, table.concat(head, '\t') .. '\t' .. table.concat(ARGV, '\t', 7))
  if not redis.call('ZSCORE', KEYS[3], tenant) then
    local fair = redis.call('HMGET', KEYS[5], 'v', tenant)
    redis.call('ZADD', KEYS[3], digits(math.max(tonumber(fair[1] or 0), tonumber(fair[2] or 0))), tenant)
  end
  local keep = math.ceil(life / 1000) + KEEP
  redis.call('HINCRBY', KEYS[1], 'n', 1)
  redis.call('HSETNX', KEYS[5], 'v', 0)
  for _, key in ipairs({KEYS[1], KEYS[2], KEYS[3], KEYS[5], queue_of(tenant)}) do lengthen(key, keep) end
end

local next = look_at(at, horizon)
if at <= now + horizon then
  -- It could pass by itself: the pump says whether somebody goes before it.
  local result = pump(now, rid)
  next = result.next
  if result.own then
    if recount() > 0 then schedule(next, process, now) end
    return {1, result.variant, result.own, result.own - now}
  end
end
if life == 0 then
  local place = string.match(redis.call('HGET', KEYS[2], rid) or '', '^[^\t]+')
  if place then leave(tenant, place, rid) end
  if redis.call('ZCARD', queue_of(tenant)) == 0 then redis.call('ZREM', KEYS[3], tenant) end
  if recount() > 0 then schedule(next, process, now) end
  return {3, worst > 0 and (worst - split - 1) / 4 or 0, math.max(at, next) - now}
end
local due, mine = schedule(next, process, now)
local place = string.match(redis.call('HGET', KEYS[2], rid) or '', '^[^\t]+')
return {2, due, mine, (place and redis.call('ZRANK', queue_of(tenant), place) or 0) + 1, worst > 0 and (worst - split - 1) / 4 or 0, at - now}
