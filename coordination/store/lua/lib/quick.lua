-- The way of nearly every admission: nobody waits, every bucket is known, and all have room. What the other ways need is
-- not even defined before, for a script's definitions are made anew with each run, and cost as much as all the rest.
-- Decides as lib/buckets does, in one read and one write for each hash; ARGV as in limits/admit. A number is passed to
-- the server as it is, which writes whole ones exactly.
local SLICE, SLOT_LIFE, KEEP = 30000000, 3000000, 120000
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local base = ARGV[1]

-- Charges the checks ARGV[first..last], if all of them pass within `ahead`. Returns the moment, or nothing; then nothing
-- has happened.
local function admit_at_once(first, last, ahead)
  local at, i, before = now, first, {}
  while i <= last do
    local hash = ARGV[i]
    if hash == 's' then
      local key = base .. ARGV[i + 1]
      redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
      if redis.call('ZCARD', key) >= tonumber(ARGV[i + 2]) and not redis.call('ZSCORE', key, ARGV[i + 3]) then return end
      i = i + 4
    else
      local call, many = {'HMGET', base .. hash}, 2
      local j = i
      repeat
        many = many + 1
        call[many] = ARGV[j + 1]
        j = j + 4
      until j > last or ARGV[j] ~= hash
      local levels = redis.call(unpack(call))
      for k = 1, many - 2 do
        local level = tonumber(levels[k])
        -- A new bucket takes the longer way: old ones make room for it.
        if not level then return end
        local passes = level - math.max(ARGV[i + 3] - ARGV[i + 2], 0)
        if passes > at then
          if passes > now + ahead then return end
          at = passes
        end
        before[i] = level
        i = i + 4
      end
    end
  end
  i = first
  while i <= last do
    local hash = ARGV[i]
    if hash == 's' then
      local key = base .. ARGV[i + 1]
      redis.call('ZADD', key, now + SLOT_LIFE, ARGV[i + 3])
      redis.call('PEXPIRE', key, SLOT_LIFE / 1000 + 1000)
      i = i + 4
    else
      local key, life = base .. hash, 0
      local call, many = {'HSET', key}, 2
      repeat
        local level = before[i]
        local after = math.max(level, at) + ARGV[i + 2]
        call[many + 1], call[many + 2] = ARGV[i + 1], after
        many = many + 2
        if level % SLICE + after - level >= SLICE then life = math.max(life, after - now) end
        i = i + 4
      until i > last or ARGV[i] ~= hash
      redis.call(unpack(call))
      if life > 0 then
        life = math.ceil(life / 1000) + KEEP
        redis.call('PEXPIRE', key, life, 'NX')
        redis.call('PEXPIRE', key, life, 'GT')
      end
    end
  end
  return at
end
