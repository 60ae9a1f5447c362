-- target, id
local id = ARGV[2]
if redis.call('HEXISTS', heads, id) == 0 then return 'missing' end
local size = size_of(id)
if redis.call('ZREM', dead, id) == 1 then
  redis.call('HINCRBY', stat, 'dead:' .. target, -size)
elseif redis.call('ZREM', done, id) == 0 then
  leave(id, size)
  look(0) -- to clear its entry away
end
forget(id)
return 'ok'
