-- Puts a dump back into a store that lost its data.
-- KEYS: head, items, log
-- ARGV: epoch, revision, commit id, time, number of items, channel, then key and value of each item
-- Returns {'ok', revision} | {'conflict', revision}
local head = redis.call('HMGET', KEYS[1], 'epoch', 'revision', 'count', 'restored')
local count = redis.call('HLEN', KEYS[2])

local damaged = not head[1] or count ~= tonumber(head[3])
local behind = head[1] == ARGV[1] and head[4] == '1' and tonumber(head[2]) < tonumber(ARGV[2])
if not damaged and not behind then return {'conflict', head[2]} end

redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
for i = 7, #ARGV, 2 do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'revision', ARGV[2], 'id', ARGV[3], 'time', ARGV[4],
  'count', ARGV[5], 'oldest', '0', 'log_bytes', '0', 'restored', '1')
redis.pcall('PUBLISH', ARGV[6], ARGV[2])
return {'ok', ARGV[2]}
