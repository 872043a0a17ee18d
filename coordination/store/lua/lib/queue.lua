-- Who waits for a provider, and the pump that admits them. Needs lib/buckets.
--
-- waiters: request id -> 'place TAB deadline TAB process TAB tenant TAB cost to its share TAB horizon TAB number of
-- values of the first variant TAB check values ...'. Each tenant has a sorted set of places: score = -priority, member = arrival and id.
-- tenants: start tag of each tenant that waits. fair: v = start tag of the last admission, tenant -> its finish tag.
-- Order is by start-time fair queueing (Goyal, Vin, Cheng 1996): an admission that costs c of a tenant of weight w moves
-- its tag on by c / w. Within a tenant larger priorities go first, equal ones in order of arrival.
local LEAD = 100000
local OVERDUE = 300000
local LONGEST_LOOK = 10000000
local FORSAKEN = 2000000
local REMEMBERED = 30000000
local MOST_TENANTS = 256
local MOST_ADMITTED = 128
local MOST_REFUSED = 64
local MOST_DEAF = 256
local AHEAD = 8

-- Processes that did not hear a push in this run of the script.
local unheard = {}

-- A little before the first of those who wait can pass: the push is there in time, and no part of the rate is lost.
local function look_at(at, horizon) return at - math.min(LEAD, horizon / 2) end

local function queue_of(tenant) return ARGV[1] .. 'q:' .. tenant end

local function leave(tenant, place, rid)
  redis.call('ZREM', queue_of(tenant), place)
  redis.call('HDEL', KEYS[2], rid)
end

local function recount()
  local many = redis.call('HLEN', KEYS[2])
  if many == 0 then
    redis.call('DEL', KEYS[3], KEYS[5])
    redis.call('HDEL', KEYS[1], 'n', 'pump', 'due')
  else
    redis.call('HSET', KEYS[1], 'n', many)
  end
  return many
end

-- The entry `skip` places behind the head of a tenant's queue; entries whose time is over are dropped on the way.
local function entry_of(tenant, skip, now)
  while true do
    local place = redis.call('ZRANGE', queue_of(tenant), skip, skip)[1]
    if not place then return nil end
    local rid = string.match(place, ':(.*)$')
    local text = redis.call('HGET', KEYS[2], rid)
    local w = {}
    for part in string.gmatch(text or '', '[^\t]+') do w[#w + 1] = part end
    if text and tonumber(w[2]) > now then
      w.rid, w.process, w.cost, w.split = rid, w[3], tonumber(w[5]), 7 + tonumber(w[7])
      w.horizon = tonumber(w[6])
      w.arrived = tonumber(string.match(place, '^(%d+):'))
      return w
    end
    leave(tenant, place, rid)
  end
end

local function tag_on(t, cost)
  redis.call('HSET', KEYS[5], 'v', digits(t.tag), t.name, digits(t.tag + cost))
  t.tag = t.tag + cost
  if redis.call('ZCARD', queue_of(t.name)) == 0 then
    redis.call('ZREM', KEYS[3], t.name)
  else
    redis.call('ZADD', KEYS[3], digits(t.tag), t.name)
  end
end

-- Admits one entry: pushes to its process first, for what nobody hears is not charged. `own` needs no push, its caller
-- reads the reply. Without a receiver the entry is skipped and keeps its place, for a process that only lost its
-- subscription; after two seconds it is dropped, and such a process queues it again. Returns 'given', 'skipped' or
-- 'dropped'.
local function give(t, w, first, last, variant, at, now, own)
  if w.rid ~= own then
    local message = 'admit ' .. w.rid .. ' ' .. variant .. ' ' .. digits(at) .. ' ' .. digits(at - now)
    local deaf = unheard[w.process] or redis.call('SPUBLISH', ARGV[1] .. 'p:' .. w.process, message) == 0
    if deaf then
      unheard[w.process] = true
      if w.arrived + FORSAKEN > now then return 'skipped' end
      leave(t.name, w[1], w.rid)
      return 'dropped'
    end
  end
  take(w, first, last, at, now)
  leave(t.name, w[1], w.rid)
  redis.call('ZADD', KEYS[4], digits(at), w.rid .. ' ' .. variant)
  tag_on(t, w.cost)
  return 'given'
end

-- Tenants within their guarantees go first, whatever the tags say.
local function give_guaranteed(t, now, own, result)
  local skip = 0
  while result.many < MOST_ADMITTED and skip < MOST_DEAF do
    local w = entry_of(t.name, skip, now)
    if not w or w.split == 7 then return end
    local at = passes_at(w, 8, w.split, now)
    if at > now + w.horizon then
      result.next = math.min(result.next, look_at(at, w.horizon))
      return
    end
    local outcome = give(t, w, 8, w.split, 1, at, now, own)
    if outcome == 'given' then
      result.many = result.many + 1
      if w.rid == own then result.own, result.variant = at, 1 end
    elseif outcome == 'skipped' then
      skip = skip + 1
    end
  end
end

-- A bucket that refused one entry refuses all that come after it in order: nothing overtakes on the same bucket, and
-- what needs other buckets is not held up.
local function closed_by(w, closed)
  for i = w.split + 1, #w, 4 do
    if closed[w[i + 1]] then return true end
  end
  return false
end

local function give_in_turn(t, now, own, result, closed)
  local w = entry_of(t.name, t.skip, now)
  if not w then return false end
  local shut = closed_by(w, closed)
  if not shut then
    local at, worst = passes_at(w, w.split + 1, #w, now)
    if at <= now + w.horizon then
      local outcome = give(t, w, w.split + 1, #w, 2, at, now, own)
      if outcome == 'given' then
        result.many = result.many + 1
        if w.rid == own then result.own, result.variant = at, 2 end
      elseif outcome == 'skipped' then
        -- Those whom nobody can reach do not count among the few that are looked at behind a head that has to wait.
        t.skip, t.deaf = t.skip + 1, t.deaf + 1
        result.next = math.min(result.next, now + FORSAKEN)
      end
      return t.deaf < MOST_DEAF
    else
      closed[w[worst + 1]] = true
      result.next = math.min(result.next, look_at(at, w.horizon))
    end
  end
  result.refused = result.refused + 1
  t.skip = t.skip + 1
  return t.skip - t.deaf < AHEAD
end

-- Admits, in order, all who pass within the horizon. Returns {many, own = when `own` may go, variant, next = when it is
-- worth the next look}.
local function pump(now, own)
  local result = {many = 0, refused = 0, next = now + LONGEST_LOOK}
  local found = redis.call('ZRANGE', KEYS[3], 0, MOST_TENANTS - 1, 'WITHSCORES')
  local tenants, closed = {}, {}
  for i = 1, #found, 2 do
    local t = {name = found[i], tag = tonumber(found[i + 1]), skip = 0, deaf = 0}
    give_guaranteed(t, now, own, result)
    tenants[#tenants + 1] = t
  end
  while #tenants > 0 and result.many < MOST_ADMITTED and result.refused < MOST_REFUSED do
    local least = 1
    for i = 2, #tenants do
      if tenants[i].tag < tenants[least].tag then least = i end
    end
    if not give_in_turn(tenants[least], now, own, result, closed) then
      local done = table.remove(tenants, least)
      if redis.call('ZCARD', queue_of(done.name)) == 0 then redis.call('ZREM', KEYS[3], done.name) end
    end
  end
  if result.many >= MOST_ADMITTED then result.next = now + LEAD end
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', digits(now - REMEMBERED))
  if result.many > 0 then lengthen(KEYS[4], KEEP) end
  return result
end

-- Notes when the pump has to run next, and who does it: the process that has it, unless it is late or the caller knows
-- of an earlier moment. Returns {us until then, 1 if the caller is to pump}.
local function schedule(next, process, now)
  local due = math.max(next, now + 5000)
  local h = redis.call('HMGET', KEYS[1], 'pump', 'due')
  local noted = tonumber(h[2] or 0)
  local mine = not h[1] or h[1] == process or noted + OVERDUE < now or due + LEAD < noted
  if mine then
    redis.call('HSET', KEYS[1], 'pump', process, 'due', digits(due))
  elseif due > noted then
    due = noted
  end
  return due - now, mine and 1 or 0
end

-- After a change that may let somebody in: pumps if anybody waits. Returns {number waiting, us until the next look, 1 if
-- the caller is to pump then}.
local function let_in(process, now)
  if redis.call('HEXISTS', KEYS[1], 'n') == 0 then return 0, 0, 0 end
  local result = pump(now, '')
  local many = recount()
  if many == 0 then return 0, 0, 0 end
  return many, schedule(result.next, process, now)
end
