-- target, id, head, order key
local id = ARGV[2]
if redis.call('ZREM', dead, id) == 0 then return 'not_dead' end
local size = size_of(id)
redis.call('HINCRBY', stat, 'dead:' .. target, -size)
redis.call('HSET', heads, id, ARGV[3])
arrive(id, ARGV[4], size)
return 'ok'
