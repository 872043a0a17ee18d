-- The way of nearly every admission: nobody waits, every bucket is known, and all have room. What the other ways need is
-- not even defined before, for a script's definitions are made anew with each run, and cost as much as all the rest.
-- Decides as lib/buckets does, in one read and one write for all buckets; ARGV as in limits/admit. A number is passed to
-- the server as it is, which writes whole ones exactly.
local SLICE, SLOT_LIFE, KEEP = 30000000, 3000000, 120000
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local base = ARGV[1]

-- Charges the checks ARGV[first..last], if all of them pass within `ahead` and nobody waits before: in `queue`, or without
-- one in any. Returns the moment, or nothing; then nothing has happened.
local function admit_at_once(first, last, ahead, queue)
  local read, places, many = {'HMGET', KEYS[1], 'n'}, {}, 0
  for i = first, last, 4 do
    if ARGV[i] == 's' then
      local key = base .. ARGV[i + 1]
      redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
      if redis.call('ZCARD', key) >= tonumber(ARGV[i + 2]) and not redis.call('ZSCORE', key, ARGV[i + 3]) then return end
    else
      many = many + 1
      places[many], read[many + 3] = i, ARGV[i + 1]
    end
  end
  local levels = redis.call(unpack(read))
  if levels[1] and (not queue or redis.call('EXISTS', queue) == 1) then return end
  local at, intervals = now, {}
  for k = 1, many do
    local level, interval, slack = tonumber(levels[k + 1]), tonumber(ARGV[places[k] + 2]), tonumber(ARGV[places[k] + 3])
    -- A new bucket takes the longer way: old ones make room for it.
    if not level then return end
    local passes = slack > interval and level - slack + interval or level
    if passes > at then
      if passes > now + ahead then return end
      at = passes
    end
    levels[k + 1], intervals[k] = level, interval
  end
  if many > 0 then
    local write, life = {'HSET', KEYS[1]}, 0
    for k = 1, many do
      local level = levels[k + 1]
      local after = (level > at and level or at) + intervals[k]
      write[2 * k + 1], write[2 * k + 2] = read[k + 3], after
      if level % SLICE + after - level >= SLICE then life = math.max(life, after - now) end
    end
    redis.call(unpack(write))
    if life > 0 then
      life = math.ceil(life / 1000) + KEEP
      redis.call('PEXPIRE', KEYS[1], life, 'NX')
      redis.call('PEXPIRE', KEYS[1], life, 'GT')
    end
  end
  for i = first, last, 4 do
    if ARGV[i] == 's' then
      local key = base .. ARGV[i + 1]
      redis.call('ZADD', key, now + SLOT_LIFE, ARGV[i + 3])
      redis.call('PEXPIRE', key, SLOT_LIFE / 1000 + 1000)
    end
  end
  return at
end
