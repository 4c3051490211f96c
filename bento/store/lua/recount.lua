-- ARGV: identity, half-life in days. Trends anew, from the votes of the events that are kept.
local sums, cursor = {}, '0'
half_life = tonumber(ARGV[2]) * DAY
repeat
  local found = redis.call('SCAN', cursor, 'MATCH', P .. 'events:*', 'COUNT', 1000)
  cursor = found[1]
  for _, key in ipairs(found[2]) do  -- no key comes twice: nothing changes meanwhile
    local events = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #events, 2 do
      local vote = vote_of(events[i])
      if vote > 0 then
        local item = record_of(events[i]).item_id
        sums[item] = plus(sums[item], vote, tonumber(events[i + 1]))
      end
    end
  end
until cursor == '0'
redis.call('DEL', P .. 'trends')
for item, sum in pairs(sums) do set_trend(item, sum) end
redis.call('SET', P .. 'half_life', ARGV[2])
return redis.status_reply('OK')
