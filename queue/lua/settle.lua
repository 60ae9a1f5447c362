-- target, consumer, entry, id, action, head, delay, ledger, max dead, max dead bytes
local consumer, entry, id, action = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local held = redis.pcall('XPENDING', stream, group, entry, entry, 1)
local mine = not held.err and held[1] and held[1][2] == consumer
if not redis.call('ZSCORE', open, id) then
  if mine then
    redis.call('XACK', stream, group, entry)
    redis.call('XDEL', stream, entry)
  end
  return 'lost'
end
-- A delivery that reached its target is done, whoever holds it now. Everything else is for its holder to say.
if not mine and action ~= 'delivered' then return 'lost' end

if action == 'release' then
  -- As if it had been idle for a day: the next lease takes it over.
  redis.call('XCLAIM', stream, group, consumer, 0, entry, 'IDLE', 86400000, 'JUSTID')
  look(0)
  return 'ok'
end

redis.pcall('XACK', stream, group, entry)
redis.call('XDEL', stream, entry)
redis.call('HSET', heads, id, ARGV[6])
if action == 'retry' then
  local at = now + tonumber(ARGV[7])
  redis.call('ZADD', due, at, id)
  look(at)
  return 'ok'
end
local size = size_of(id)
leave(id, size)
if action == 'delivered' then
  redis.call('HDEL', bodies, id)
  redis.call('ZADD', done, 0, id)
  local over = redis.call('ZCARD', done) - tonumber(ARGV[8])
  if over > 0 then
    for _, old in ipairs(redis.call('ZRANGE', done, 0, over - 1)) do
      redis.call('ZREM', done, old)
      forget(old)
    end
  end
else
  redis.call('ZADD', dead, 0, id)
  redis.call('HINCRBY', stat, 'dead:' .. target, size)
  trim_dead(tonumber(ARGV[9]), tonumber(ARGV[10]), '', 1000)
end
return 'ok'
