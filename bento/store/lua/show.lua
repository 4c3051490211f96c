-- ARGV: identity, seconds an impression is kept, then five for each: request id, time, the
-- impression as JSON, tombstone of the user and the user (both empty for an unknown one).
local kept = tonumber(ARGV[2])
local oldest = tonumber(redis.call('TIME')[1]) - kept
for i = 3, #ARGV, 5 do
  local request, time, mark, user = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 3], ARGV[i + 4]
  local erasure = mark ~= '' and erased(mark)
  if time > oldest and not (erasure and time <= erasure) then
    local expires = string.format('%d', time + kept)
    local new = redis.call('SET', P .. 'shown:' .. request, ARGV[i + 2], 'NX', 'EXAT', expires)
    if new and mark ~= '' then
      local answers = P .. 'answers:' .. user
      redis.call('ZADD', answers, time, request)
      redis.call('ZREMRANGEBYSCORE', answers, '-inf', oldest)
      redis.call('EXPIRE', answers, kept)
    end
  end
end
return redis.status_reply('OK')
