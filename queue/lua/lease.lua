-- target, consumer, limit, visibility. Returns now and, for each delivery, entry, id, head, body.
local consumer, limit, visibility = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

-- Delayed ones whose time has come.
local batch = math.max(limit, 100)
local moved = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, batch)
for _, id in ipairs(moved) do
  redis.call('ZREM', due, id)
  ready(id)
end

local leased = {}
-- keep takes what is still pending; what was dropped in the meantime goes.
local function keep(entries)
  for _, entry in ipairs(entries) do
    if entry and entry[2] then
      local id = entry[2][2]
      local body = redis.call('ZSCORE', open, id) and redis.call('HGET', bodies, id)
      if body then
        leased[#leased + 1] = entry[1]
        leased[#leased + 1] = id
        leased[#leased + 1] = redis.call('HGET', heads, id) or ''
        leased[#leased + 1] = body
      else
        redis.call('XACK', stream, group, entry[1])
        redis.call('XDEL', stream, entry[1])
      end
    end
  end
end

-- What others leased and did not renew. A consumer group that is not there, because Redis was flushed or a replica
-- took over that did not have it, is made anew; then all that was leased is due again.
local cursor = redis.call('HGET', stat, 'claim:' .. target) or '0-0'
local claim = {'XAUTOCLAIM', stream, group, consumer, visibility, cursor, 'COUNT', limit}
local claimed = redis.pcall(unpack(claim))
if claimed.err then
  if not string.find(claimed.err, 'NOGROUP', 1, true) then return claimed end
  redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
  claimed = redis.call(unpack(claim))
end
keep(claimed[2])
if claimed[1] == '0-0' then
  redis.call('HDEL', stat, 'claim:' .. target)
else
  redis.call('HSET', stat, 'claim:' .. target, claimed[1])
end

local room, more = limit - #leased / 4, #moved == batch or claimed[1] ~= '0-0'
while room > 0 do
  local read = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', room, 'STREAMS', stream, '>')
  if not read or not read[1] then break end
  local count = #read[1][2]
  keep(read[1][2])
  if count < room then break end
  room = limit - #leased / 4
end
more = more or #leased / 4 >= limit

-- When is the lane to be looked at again? At once; or when the next one is due or a lease may have ended.
local at = 0
if not more then
  at = tonumber(redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')[2] or math.huge)
  if redis.call('XPENDING', stream, group)[1] > 0 then at = math.min(at, now + visibility) end
end
if at == math.huge then
  redis.call('ZREM', lanes, target)
else
  redis.call('ZADD', lanes, at, target)
end
return {now, leased}
