-- Shared by all lease scripts. KEYS 1..5: lease, queue, waiters, cancelled, events.
-- ARGV 1..3: channel prefix of the processes, channel of everyone ('' = none), '1' to record events.
--
-- Lease hash: f = last fence ever granted; while held also rid, agent, ch (process), role, until, ttl, since, prov
-- (end of the provisional window, '0' once the grantee renewed), condemned ('1': it must not renew any more), shut
-- (when the holder's own deadline is over, if that is not `until`), why (the reason for which somebody else moved it there).
-- n = '1' if there may be waiters; closed = until when only the highest fence may claim; cx = last cancellation's end.
local PROVISIONAL = 250000
local KEEP = 55000
local FORSAKEN = 30000000

local function int(number) return string.format('%.0f', number) end

local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- A fence is the largest of the clock, the last fence plus one, and the highest that the caller has seen plus one:
-- it grows even when a replica that missed the last grant is promoted, or the server comes back empty.
local function fence_after(now, last, seen)
  return math.max(now, last + 1, seen + 1)
end

local function keep(ttl)
  redis.call('PEXPIRE', KEYS[1], math.ceil(ttl / 1000) + KEEP)
end

local function record(kind, agent, fence, role, reason, now)
  if ARGV[3] == '1' then
    redis.call('XADD', KEYS[5], 'MAXLEN', '~', 1000, '*', 'kind', kind, 'agent', agent, 'fence', int(fence),
      'role', role, 'reason', reason, 'at', int(now))
    redis.call('PEXPIRE', KEYS[5], 3600000, 'NX')
  end
  if ARGV[2] ~= '' then
    redis.call('SPUBLISH', ARGV[2], '{"k":"floor"}')
  end
end

local function install(now, fence, rid, agent, process, role, ttl, window)
  redis.call('HSET', KEYS[1], 'f', int(fence), 'rid', rid, 'agent', agent, 'ch', process, 'role', role,
    'until', int(now + ttl), 'ttl', int(ttl), 'since', int(now), 'prov', window > 0 and int(now + window) or '0',
    'condemned', '0', 'closed', '0')
  keep(ttl)
  record('grant', agent, fence, role, window > 0 and 'queue' or 'free', now)
end

local function vacate()
  redis.call('HDEL', KEYS[1], 'rid', 'agent', 'ch', 'role', 'until', 'ttl', 'since', 'prov', 'condemned', 'shut', 'why')
end

-- Returns the number of processes that received the grant: 0 when the waiter's subscription is gone.
local function push(now, fence, rid, process, ttl)
  return redis.call('SPUBLISH', ARGV[1] .. process,
    'grant ' .. rid .. ' ' .. int(fence) .. ' ' .. int(now) .. ' ' .. int(ttl) .. ' ' .. PROVISIONAL)
end

local function drop(member, rid)
  redis.call('ZREM', KEYS[2], member)
  redis.call('HDEL', KEYS[3], rid)
end

-- Grants a free lease to the first waiter that can be reached. An entry without a receiver is skipped and keeps its
-- place, for a process that only lost its subscription repeats its requests; after half a minute it is nobody's. The
-- request `own` needs no push, its caller reads the reply.
-- Returns the fence and request id of the grant, or nil.
local function grant_next(now, last, own)
  local first = 0
  while true do
    local batch = redis.call('ZRANGE', KEYS[2], first, first + 15)
    if #batch == 0 then
      if first == 0 then redis.call('HSET', KEYS[1], 'n', '0') end
      return nil
    end
    for _, member in ipairs(batch) do
      local rid = string.match(member, ':(.*)$')
      local entry = redis.call('HGET', KEYS[3], rid)
      local waiter = entry and cjson.decode(entry)
      if not waiter or tonumber(waiter.deadline) <= now then
        drop(member, rid)
      else
        local fence = fence_after(now, last, tonumber(waiter.seen))
        local ttl = tonumber(waiter.ttl)
        if rid == own or push(now, fence, rid, waiter.ch, ttl) > 0 then
          drop(member, rid)
          install(now, fence, rid, waiter.agent, waiter.ch, waiter.role, ttl, rid == own and 0 or PROVISIONAL)
          return fence, rid
        end
        if tonumber(waiter.at) + FORSAKEN < now then
          drop(member, rid)
        else
          first = first + 1
        end
      end
    end
  end
end
