-- ARGV: identity, how many items to remove, those, then those to add.
local changes, removed = 0, tonumber(ARGV[2])
for i = 3, #ARGV do
  local what = i < 3 + removed and 'SREM' or 'SADD'
  changes = changes + redis.call(what, P .. 'blocked', ARGV[i])
end
if changes > 0 then redis.call('INCR', P .. 'changed') end
return {redis.call('SMEMBERS', P .. 'blocked'), tonumber(redis.call('GET', P .. 'changed') or '0')}
