-- Shared by the scripts of the roster. Fields of the roster hash that start with a brace are not agents (no name may
-- hold one): `{gone}<agent>` = until when a removed agent is refused (µs), `{ended}` = when the last member left,
-- `{asked}<agent>` = why an agent is asked to leave its call to another.

local GONE = '{gone}'

local function is_gone(roster, agent, now)
  local till = redis.call('HGET', roster, GONE .. agent)
  if not till then
    return false
  end
  if tonumber(till) > now then
    return true
  end
  redis.call('HDEL', roster, GONE .. agent)
  return false
end

-- Without a recent heartbeat an agent is dead; with a slightly late one its process is asked. Zero receivers mean that
-- its subscription is gone, which a process that lives restores within a heartbeat.
local function is_alive(beats, agent, process, channel, now, doubt, dead)
  local beat = redis.call('ZSCORE', beats, agent)
  local age = beat and now - tonumber(beat) or dead + 1
  if age > dead then
    return false
  end
  return age <= doubt or redis.call('SPUBLISH', channel .. process, 'ping') > 0
end

-- Takes an agent off the roster and refuses it until `till`.
local function expel(roster, beats, agent, till)
  -- The mark comes first: a hash that loses its last field loses its lifetime with it.
  redis.call('HSET', roster, GONE .. agent, digits(till))
  redis.call('HDEL', roster, agent)
  redis.call('ZREM', beats, agent)
end

-- The live agent that serves `role`, other than `agent`; dead ones that claimed it are replaced on the way. An agent
-- that is leaving has given its role up: a relocation brings the next one before it goes.
local function served_by(keys, role, agent, channel, now, doubt, dead, refuse_for)
  local fields = redis.call('HGETALL', keys.roster)
  for i = 1, #fields, 2 do
    local other = fields[i]
    if other ~= agent and other:sub(1, 1) ~= '{' then
      local member = cjson.decode(fields[i + 1])
      if member.role == role and member.state ~= 'leaving' then
        if is_alive(keys.beats, other, member.process, channel, now, doubt, dead) then
          return other
        end
        expel(keys.roster, keys.beats, other, now + refuse_for)
        record(keys.events, now, 'remove', other, role, '', 'replaced')
      end
    end
  end
  return nil
end

-- Decides whether `agent` may be on the roster: 'ok', or 'removed', 'elsewhere' (its id is used by a live agent of
-- another process) or 'taken', with the agent or process that is in the way.
local function admit(keys, agent, member, claim, channel, now, doubt, dead, refuse_for)
  if is_gone(keys.roster, agent, now) then
    return 'removed', ''
  end
  local stored = redis.call('HGET', keys.roster, agent)
  if stored then
    local process = cjson.decode(stored).process
    if process ~= member.process and is_alive(keys.beats, agent, process, channel, now, doubt, dead) then
      return 'elsewhere', process
    end
  end
  if claim and member.state ~= 'leaving' then
    local other = served_by(keys, member.role, agent, channel, now, doubt, dead, refuse_for)
    if other then
      return 'taken', other
    end
  end
  return 'ok', ''
end

-- A heartbeat keeps every key of the room (KEYS from `first` on) for `ms`.
local function keep_all(first, ms)
  for i = first, #KEYS do
    redis.call('PEXPIRE', KEYS[i], ms)
  end
end
