-- target, id, head, body, size, order key, accepted before, max pending, max of the target, max bytes
local id, size = ARGV[2], tonumber(ARGV[5])
if redis.call('HEXISTS', heads, id) == 1 then return 'known' end
if ARGV[7] == '0' then
  if redis.call('ZCARD', open) >= tonumber(ARGV[9]) then return 'target_full' end
  local pending = redis.call('HMGET', stat, 'open', 'bytes')
  if tonumber(pending[1] or 0) >= tonumber(ARGV[8]) then return 'full' end
  if tonumber(pending[2] or 0) + size > tonumber(ARGV[10]) then return 'full' end
end
redis.call('HSET', heads, id, 'p' .. string.format('%013d', now) .. ARGV[3])
redis.call('HSET', bodies, id, ARGV[4])
arrive(id, ARGV[6], size)
return 'ok'
