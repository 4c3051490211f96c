-- ARGV: identity, user, tombstone of the user, time of the erasure.
local user, mark, now = ARGV[2], ARGV[3], tonumber(ARGV[4])
local events = redis.call('ZRANGE', P .. 'events:' .. user, 0, -1, 'WITHSCORES')
for i = 1, #events, 2 do
  local vote, item = vote_of(events[i]), record_of(events[i]).item_id
  local kept = trend(item)
  if vote > 0 and kept then set_trend(item, minus(kept, vote, tonumber(events[i + 1]))) end
end
for _, request in ipairs(redis.call('ZRANGE', P .. 'answers:' .. user, 0, -1)) do
  redis.call('DEL', P .. 'shown:' .. request)
end
for _, kind in ipairs({'events:', 'ids:', 'votes:', 'horizon:', 'answers:'}) do
  redis.call('DEL', P .. kind .. user)
end
local time = math.max(now, erased(mark) or now)
redis.call('HSET', P .. 'erasures', mark, string.format('%d', time))
return #events / 2
