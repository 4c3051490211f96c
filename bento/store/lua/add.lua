-- ARGV: identity, events kept of a user, then seven for each event:
-- user, tombstone of the user, event id, item, time, weight, the event as JSON.
local accepted, duplicates, forgotten = 0, 0, 0

-- Of one item and UTC day, a user's acts count as the strongest; days of which the history has
-- lost events add nothing.
local function vote(user, item, time, weight, horizon)
  local day = math.floor(time / DAY)
  if weight <= 0 or (horizon and day <= math.floor(horizon / DAY)) then return 0 end
  local key, field = P .. 'votes:' .. user, day .. ':' .. item
  local counted = tonumber(redis.call('HGET', key, field) or '0')
  if weight <= counted then return 0 end
  redis.call('HSET', key, field, string.format('%.17g', weight))
  set_trend(item, plus(trend(item), weight - counted, time))
  return weight - counted
end

-- The oldest event goes; the horizon is the time of the newest that went.
local function give_way(user, horizon)
  local gone = redis.call('ZPOPMIN', P .. 'events:' .. user)
  redis.call('SREM', P .. 'ids:' .. user, record_of(gone[1]).event_id)
  local time = tonumber(gone[2])
  if horizon and time <= horizon then return end
  redis.call('SET', P .. 'horizon:' .. user, string.format('%d', time))
  local day = math.floor(time / DAY)
  if horizon and day == math.floor(horizon / DAY) then return end
  for _, field in ipairs(redis.call('HKEYS', P .. 'votes:' .. user)) do
    if tonumber(string.match(field, '^(%-?%d+):')) <= day then
      redis.call('HDEL', P .. 'votes:' .. user, field)
    end
  end
end

for i = 3, #ARGV, 7 do
  local user, id, item = ARGV[i], ARGV[i + 2], ARGV[i + 3]
  local time, weight = tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5])
  local erasure = erased(ARGV[i + 1])
  local horizon = tonumber(redis.call('GET', P .. 'horizon:' .. user) or '')
  if erasure and time <= erasure then
    forgotten = forgotten + 1
  elseif (horizon and time <= horizon) or redis.call('SADD', P .. 'ids:' .. user, id) == 0 then
    duplicates = duplicates + 1
  else
    local added = vote(user, item, time, weight, horizon)
    local member = string.format('%015d %.17g %.17g %s',
      redis.call('INCR', P .. 'arrivals'), weight, added, ARGV[i + 6])
    redis.call('ZADD', P .. 'events:' .. user, ARGV[i + 4], member)
    if redis.call('ZCARD', P .. 'events:' .. user) > tonumber(ARGV[2]) then
      give_way(user, horizon)
    end
    accepted = accepted + 1
  end
end
return {accepted, duplicates, forgotten}
