-- target, id that dead letters must not be older than, max dead, max dead bytes, idle time of a consumer that is gone.
-- Returns how many dead letters went.
local expired = trim_dead(tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[2], 1000)
local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, group)
if not consumers.err then
  for _, c in ipairs(consumers) do
    local field = {}
    for i = 1, #c, 2 do field[c[i]] = c[i + 1] end
    if field.pending == 0 and field.idle > tonumber(ARGV[5]) then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, field.name)
    end
  end
end
if redis.call('EXISTS', open, dead, done) == 0 then
  redis.call('DEL', stream, due, heads, bodies, order, places)
  redis.call('HDEL', stat, 'bytes:' .. target, 'dead:' .. target, 'claim:' .. target)
  redis.call('SREM', targets, target)
  redis.call('ZREM', lanes, target)
end
return expired
