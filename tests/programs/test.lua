-- Touches every library and the parts of the core that the incremental test edits.
local out = {}
local function say(...)
  local parts = table.pack(...)
  for i = 1, parts.n do parts[i] = tostring(parts[i]) end
  out[#out + 1] = table.concat(parts, " ")
end

local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
say("fib", fib(20), 2 ^ 10, 7 // 2, -7 % 3, 1 << 10, "10" + 5)

local words = {}
for word in ("the quick brown fox"):gmatch("%a+") do words[#words + 1] = word:upper() end
table.sort(words)
say("words", table.concat(words, ","), ("x"):rep(3, "-"), ("%5.2f|%q"):format(math.pi, "a\nb"))

local Account = {}
Account.__index = Account
Account.__add = function(a, b) return setmetatable({ balance = a.balance + b.balance }, Account) end
Account.__tostring = function(a) return "account " .. a.balance end
say("meta", setmetatable({ balance = 5 }, Account) + setmetatable({ balance = 7 }, Account))

local co = coroutine.wrap(function(a) for i = 1, 3 do a = a + coroutine.yield(a * i) end return "done" end)
say("coroutine", co(1), co(2), co(3), co(4))

say("error", pcall(error, { code = 1 }) == false, select(2, pcall(function() local t = nil; return t.x end)))
say("load", load("return 1 + ...")(41), select("#", table.unpack({ 1, 2, nil, 4 }, 1, 4)))
say("utf8", utf8.char(72, 228, 8364), utf8.len("häß"), #utf8.char(0x1F600))
say("string", ("abc"):byte(1, -1), string.pack("<i4", 7):byte(1, -1))
say("math", math.abs(-4), math.max(3, 9, 4), math.tointeger(3.0), math.type(1), math.type(1.5), 5 // 0.0, -5 // 0.0)
local closed = {}
do local x <close> = setmetatable({}, { __close = function() closed[1] = "closed" end }) end
say("close", closed[1])
local weak = setmetatable({}, { __mode = "k" })
for i = 1, 1000 do weak[{}] = i end
collectgarbage()
say("gc", next(weak), collectgarbage("count") > 0)
local big = {}
for i = 1, 5000 do big[i] = i * i end
for i = 1, 5000, 2 do big[i] = nil end
local sum = 0
for _, v in pairs(big) do sum = sum + v end
say("table", sum, table.remove({ 1, 2, 3 }), #table.move({ 1, 2, 3 }, 1, 3, 2))
say("goto", (function() local i = 0 ::top:: i = i + 1 if i < 10 then goto top end return i end)())
say("os", type(os.time()), os.date("!%Y", 0), type(io.stdout), debug.getinfo(1, "l").currentline)
print(table.concat(out, "\n"))
