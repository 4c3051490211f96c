-- ARGV: identity. The number of events, then every key of the store as name, milliseconds it has
-- left (or -1), content: one state, since nothing else runs meanwhile.
local all, cursor, seen = {0}, '0', {}
repeat
  local found = redis.call('SCAN', cursor, 'MATCH', P .. '*', 'COUNT', 1000)
  cursor = found[1]
  for _, key in ipairs(found[2]) do
    if not seen[key] then
      seen[key] = true
      local content = redis.call('DUMP', key)
      if content then  -- it may have expired since
        if string.sub(key, 1, #P + 7) == P .. 'events:' then
          all[1] = all[1] + redis.call('ZCARD', key)
        end
        all[#all + 1] = key
        all[#all + 1] = redis.call('PTTL', key)
        all[#all + 1] = content
      end
    end
  end
until cursor == '0'
return all
