-- Shared by the scripts of a room: clock, whole numbers as text, telling, recording, lifetimes.

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

-- Microseconds need 16 digits; Lua's own conversion would round them.
local function digits(n)
  return string.format('%.0f', n)
end

-- Gives a key of a room its lifetime, unless it has one: as long as the roster, or `unattended` ms where nobody keeps
-- a roster. The next heartbeat lengthens it with all the others.
local function keep(key, roster, unattended)
  local left = redis.call('PTTL', roster)
  redis.call('PEXPIRE', key, left > 0 and left or unattended, 'NX')
end

-- A message is a wake-up only: it says what kind of thing changed, and never carries it.
local function tell(channel, kind)
  if channel ~= '' then
    redis.call('SPUBLISH', channel, '{"k":"' .. kind .. '"}')
  end
end

local function record(stream, at, kind, agent, role, fence, reason)
  redis.call('XADD', stream, 'MAXLEN', '~', 1000, '*', 'kind', kind, 'agent', agent, 'role', role,
    'fence', fence, 'reason', reason, 'at', digits(at))
end
