-- Stands before every other script. ARGV[1] is the content of recserve:schema as the caller
-- knows it: its version and its salt. Where it is another, the caller has to look again.
local P, DAY = 'recserve:', 86400
if redis.call('GET', P .. 'schema') ~= ARGV[1] then
  return redis.error_reply('OTHERSTORE')
end

-- Trends as in decay.py: log2 of the sum of vote * 2 ^ (time / half-life).
local half_life = tonumber(redis.call('GET', P .. 'half_life') or '30') * DAY

local function log2(x) return math.log(x) / math.log(2) end

local function plus(kept, vote, time)
  local new = log2(vote) + time / half_life
  if not kept then return new end
  local high, low = math.max(kept, new), math.min(kept, new)
  return high + log2(1 + 2 ^ (low - high))
end

local function minus(kept, vote, time)
  local share = 2 ^ (log2(vote) + time / half_life - kept)
  if share >= 1 - 1e-9 then return nil end
  return kept + log2(1 - share)
end

local function trend(item) return tonumber(redis.call('HGET', P .. 'trends', item) or '') end

local function set_trend(item, sum)
  if sum then
    redis.call('HSET', P .. 'trends', item, string.format('%.17g', sum))
  else
    redis.call('HDEL', P .. 'trends', item)
  end
end

-- An event stands in its user's sorted set by time, as "arrival weight vote record".
local function vote_of(member) return tonumber(string.match(member, '^%S+ %S+ (%S+) ')) end

local function record_of(member)
  return cjson.decode(string.match(member, '^%S+ %S+ %S+ (.*)$'))
end

local function erased(mark) return tonumber(redis.call('HGET', P .. 'erasures', mark) or '') end
