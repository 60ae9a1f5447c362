-- What every script on a lane begins with. All keys of an instance are in one hash slot.
local lanes, targets, stat = KEYS[1], KEYS[2], KEYS[3]
local stream, due, heads, bodies = KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local open, dead, done, order, places = KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local target, group = ARGV[1], 'gateways'
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- look: the lane is to be looked at by then.
local function look(at)
  redis.call('ZADD', lanes, 'LT', at, target)
end

-- ready: the delivery can be leased.
local function ready(id)
  redis.call('XADD', stream, '*', 'i', id)
end

local function first_with(key)
  return redis.call('ZRANGEBYLEX', order, '[' .. key .. ':', '(' .. key .. ';', 'LIMIT', 0, 1)[1]
end

-- arrive: a delivery becomes pending; with an order key, when its turn comes.
local function arrive(id, key, size)
  redis.call('SADD', targets, target)
  redis.call('ZADD', open, 0, id)
  redis.call('HINCRBY', stat, 'open', 1)
  redis.call('HINCRBY', stat, 'bytes', size)
  redis.call('HINCRBY', stat, 'bytes:' .. target, size)
  if key ~= '' then
    local place = key .. ':' .. string.format('%016d', redis.call('HINCRBY', stat, 'sequence', 1)) .. ':' .. id
    redis.call('ZADD', order, 0, place)
    redis.call('HSET', places, id, place)
    if first_with(key) ~= place then return end
  end
  ready(id)
  look(0)
end

-- leave: a delivery is pending no more; the next one with its order key is, if it waited for this one.
local function leave(id, size)
  redis.call('ZREM', open, id)
  redis.call('ZREM', due, id)
  redis.call('HINCRBY', stat, 'open', -1)
  redis.call('HINCRBY', stat, 'bytes', -size)
  redis.call('HINCRBY', stat, 'bytes:' .. target, -size)
  local place = redis.call('HGET', places, id)
  if not place then return end
  local key = string.match(place, '^(.*):%d+:[^:]*$')
  local was_first = first_with(key) == place
  redis.call('ZREM', order, place)
  redis.call('HDEL', places, id)
  local next = first_with(key)
  if was_first and next then
    ready(string.match(next, '([^:]*)$'))
    look(0)
  end
end

-- The size of the payload stands in the head, ahead of every text that others chose.
local function size_of(id)
  return tonumber(string.match(redis.call('HGET', heads, id) or '', '"z":(%d+)') or 0)
end

-- forget removes a delivery that is in none of the lists any more.
local function forget(id)
  redis.call('HDEL', heads, id)
  redis.call('HDEL', bodies, id)
end

-- trim_dead removes the oldest dead letters that are too many, too large together, or older than the id.
local function trim_dead(max, max_bytes, before, limit)
  local n, field = 0, 'dead:' .. target
  while n < limit do
    local count = redis.call('ZCARD', dead)
    if count == 0 then break end
    local bytes = tonumber(redis.call('HGET', stat, field) or 0)
    local oldest = redis.call('ZRANGE', dead, 0, 0)[1]
    if count <= max and (bytes <= max_bytes or count == 1) and oldest >= before then break end
    redis.call('HINCRBY', stat, field, -size_of(oldest))
    redis.call('ZREM', dead, oldest)
    forget(oldest)
    n = n + 1
  end
  return n
end
