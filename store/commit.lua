-- Applies a commit as a whole, or says why not. Everything that can fail is done before the first write.
-- KEYS: head, items, log
-- ARGV: base, epoch or '', epoch for a new history, commit id, time, meta, max revisions, max log bytes, channel,
--       then key and value of each item; an empty value removes it
-- Returns {'ok', revision} | {'conflict', revision} | {'damaged', why}
local function int(n) return string.format('%.0f', n) end

local head = redis.call('HMGET', KEYS[1], 'epoch', 'revision', 'count', 'oldest', 'log_bytes')
local count = redis.call('HLEN', KEYS[2])
local entries = redis.call('XLEN', KEYS[3])
local base = tonumber(ARGV[1])
local epoch, revision = head[1], tonumber(head[2] or '0')
local oldest, bytes = tonumber(head[4] or '0'), tonumber(head[5] or '0')

if not epoch then
  if count > 0 or entries > 0 then return {'damaged', 'the head is missing'} end
  if base ~= 0 then return {'conflict', '0'} end
  epoch = ARGV[2] ~= '' and ARGV[2] or ARGV[3]
else
  if revision ~= base or (ARGV[2] ~= '' and ARGV[2] ~= epoch) then
    local id = int(base + 1) .. '-0'
    local entry = redis.call('XRANGE', KEYS[3], id, id)[1]
    if entry and entry[2][2] == ARGV[4] then return {'ok', int(base + 1)} end
    return {'conflict', int(revision)}
  end
  if count ~= tonumber(head[3]) then return {'damaged', count .. ' items instead of ' .. head[3]} end
end
revision = revision + 1

local NONE = struct.pack('>I4', 4294967295)
local function field(s) return struct.pack('>I4', #s) .. s end
local frame = {}
for i = 10, #ARGV, 2 do
  local before = redis.call('HGET', KEYS[2], ARGV[i])
  local set = ARGV[i + 1] ~= ''
  frame[#frame + 1] = field(ARGV[i])
  frame[#frame + 1] = before and field(before) or NONE
  frame[#frame + 1] = set and field(ARGV[i + 1]) or NONE
  if set and not before then count = count + 1 end
  if before and not set then count = count - 1 end
end
frame = table.concat(frame)

redis.call('XADD', KEYS[3], int(revision) .. '-0', 'id', ARGV[4], 'meta', ARGV[6], 'items', frame)
for i = 10, #ARGV, 2 do
  if ARGV[i + 1] ~= '' then
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  else
    redis.call('HDEL', KEYS[2], ARGV[i])
  end
end

local function size(fields) return #fields[4] + #fields[6] end
if entries == 0 then oldest, bytes = revision, 0 end
bytes = bytes + #ARGV[6] + #frame
entries = entries + 1
local keep = entries
while keep > 1 and (keep > tonumber(ARGV[7]) or bytes > tonumber(ARGV[8])) do
  local entry = redis.call('XRANGE', KEYS[3], int(oldest) .. '-0', '+', 'COUNT', 1)[1]
  if entry then bytes = bytes - size(entry[2]) end
  oldest = oldest + 1
  keep = keep - 1
end
if keep < entries then redis.call('XTRIM', KEYS[3], 'MAXLEN', keep) end

redis.call('HSET', KEYS[1], 'epoch', epoch, 'revision', int(revision), 'id', ARGV[4], 'time', ARGV[5],
  'count', int(count), 'oldest', int(oldest), 'log_bytes', int(bytes), 'restored', '')
redis.pcall('PUBLISH', ARGV[9], int(revision))
return {'ok', int(revision)}
