-- target, consumer, entries. Returns the entries that are lost.
local lost = {}
for i = 3, #ARGV do
  local held = redis.pcall('XPENDING', stream, group, ARGV[i], ARGV[i], 1)
  if not held.err and held[1] and held[1][2] == ARGV[2] then
    redis.call('XCLAIM', stream, group, ARGV[2], 0, ARGV[i], 'JUSTID')
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
