-- ARGV: identity, commands that only read, as a JSON list of lists. Their answers, of one state.
local answers = {}
for i, command in ipairs(cjson.decode(ARGV[2])) do
  answers[i] = redis.call(unpack(command))
end
return answers
