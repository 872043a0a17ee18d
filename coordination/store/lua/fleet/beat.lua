#!lua flags=allow-oom
-- The heartbeat of a worker: says that its main process lives, and keeps the registry.
-- KEYS  1 workers, 2 agents, 3 beats
-- ARGV  1 worker, 2 ms that the registry lives without a heartbeat, 3 µs after which a silent worker without agents is
--       forgotten
-- Returns the server's time (µs)
--@include room
local now = clock()
redis.call('ZADD', KEYS[1], digits(now), ARGV[1])
-- A dead worker is remembered for as long as an agent of its may have to be replaced.
local silent = redis.call('ZRANGE', KEYS[1], '-inf', '(' .. digits(now - ARGV[3]), 'BYSCORE', 'LIMIT', 0, 10)
for _, worker in ipairs(silent) do
  local busy = false
  for _, text in ipairs(redis.call('HVALS', KEYS[2])) do
    if cjson.decode(text).worker == worker then
      busy = true
      break
    end
  end
  if not busy then
    redis.call('ZREM', KEYS[1], worker)
  end
end
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, ARGV[2])
end
return now
