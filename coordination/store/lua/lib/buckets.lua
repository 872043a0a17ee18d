-- Shared by all scripts of the limits; lib/quick has a short form of it. KEYS 1..5 (all of one provider, on one slot): its
-- own hash (all buckets, and n: how many wait, pump, due), waiters, tenants, granted, fair.
-- ARGV 1: what every other key of the provider begins with.
--
-- A check is four values: 'r', field, interval, slack for a rate; 's', set, most, id for slots. All rates are in
-- microseconds: the interval is what the request takes of the bucket, the slack what a full bucket holds, the field the
-- theoretical arrival time (GCRA, ITU-T I.371): the moment at which the bucket is full again. Whole microseconds since
-- 1970 have 16 digits and stay exact in a double (2^53) until the year 2255.
local HORIZON = 250000
local SLICE = 30000000
local SLOT_LIFE = 3000000
local KEEP = 120000

local function digits(n) return string.format('%.0f', n) end

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

local function lengthen(key, ms)
  redis.call('PEXPIRE', key, ms, 'NX')
  redis.call('PEXPIRE', key, ms, 'GT')
end

local levels = {}

local function level(field)
  local tat = levels[field]
  if not tat then
    tat = tonumber(redis.call('HGET', KEYS[1], field) or 0)
    levels[field] = tat
  end
  return tat
end

-- A bucket that is full is the same as none: each new one takes up to two full ones away.
local function make_room(now)
  local some = redis.call('HRANDFIELD', KEYS[1], 2, 'WITHVALUES')
  for i = 1, #some, 2 do
    local tat = tonumber(some[i + 1])
    if tat and tat > SLICE and tat <= now and string.find(some[i], '/', 1, true) then
      redis.call('HDEL', KEYS[1], some[i])
    end
  end
end

-- The lifetime is written once per slice of bucket time, not with every charge: it is always at least a slice longer
-- than the bucket is not full.
local function set_level(field, before, after, now)
  if before == 0 then make_room(now) end
  redis.call('HSET', KEYS[1], field, digits(after))
  if math.floor(before / SLICE) ~= math.floor(after / SLICE) then
    lengthen(KEYS[1], math.ceil(math.max(after - now, 0) / 1000) + KEEP)
  end
  levels[field] = after
end

-- Gives a part of a bucket that is not full back. Never more than makes it full, for what has drained away meanwhile cannot
-- be given back, and never beyond what the provider said of it: that counts until it is over.
local FLOOR = '\tsaid'
local function give_back(field, less, now)
  local before = level(field)
  if before <= now then return end
  local said = redis.call('HGET', KEYS[1], field .. FLOOR)
  set_level(field, before, math.max(before - less, now, tonumber(said or 0)), now)
end

-- When a slot may be free: never within the horizon while all are taken, for the one that ends first may be renewed.
local function slot_at(set, most, id, now)
  local key = ARGV[1] .. set
  redis.call('ZREMRANGEBYSCORE', key, '-inf', digits(now))
  if redis.call('ZCARD', key) < tonumber(most) or redis.call('ZSCORE', key, id) then return now end
  local ends = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  return math.max(tonumber(ends or now + SLOT_LIFE), now + HORIZON + 1)
end

-- When all checks c[first..last] pass, and the index of the one that is last to.
local function passes_at(c, first, last, now)
  local at, worst = now, 0
  for i = first, last, 4 do
    local t
    if c[i] == 's' then
      t = slot_at(c[i + 1], c[i + 2], c[i + 3], now)
    else
      -- A request above the slack passes when the bucket is full.
      t = level(c[i + 1]) - math.max(c[i + 3] - c[i + 2], 0)
    end
    if t > at then at, worst = t, i end
  end
  return at, worst
end

-- Charges all checks c[first..last] as of the moment `at`, which may lie ahead: any order of moments keeps the bound.
local function take(c, first, last, at, now)
  for i = first, last, 4 do
    if c[i] == 's' then
      local key = ARGV[1] .. c[i + 1]
      redis.call('ZADD', key, digits(now + SLOT_LIFE), c[i + 3])
      redis.call('PEXPIRE', key, SLOT_LIFE / 1000 + 1000)
    else
      local before = level(c[i + 1])
      set_level(c[i + 1], before, math.max(before, at) + c[i + 2], now)
    end
  end
end
