#!lua flags=no-writes
-- Reads a lease without touching it.
-- KEYS  lease, queue, waiters, cancelled, events
-- Returns {server time, {field, value, ...} of the lease, {request id, entry (JSON), ...} of the first 100 waiters in order}
local time = redis.call('TIME')
local waiting = {}
for _, member in ipairs(redis.call('ZRANGE', KEYS[2], 0, 99)) do
  local rid = string.match(member, ':(.*)$')
  local entry = redis.call('HGET', KEYS[3], rid)
  if entry then
    waiting[#waiting + 1] = rid
    waiting[#waiting + 1] = entry
  end
end
return {time[1] * 1000000 + time[2], redis.call('HGETALL', KEYS[1]), waiting}
