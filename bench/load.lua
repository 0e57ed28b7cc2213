-- What wrk sends besides the request line and the fields of its own command line, and what it
-- says at the end. Arguments after "--", each NAME=VALUE:
--   upload=BYTES     a body, sent with PUT
--   post=BYTES       a body, sent with POST
--   cookies=FILE     a Cookie field for each request in turn, one value a line; with `differs` its
--                    value is the session
--   once=yes         a request without a cookie of its own is a wrong one: no value goes out twice
--   differs=NAMES    the twelve fields of a browser behind an edge, of which these differ from
--                    request to request: path, original, referer, validator, ids, cookie, with
--                    commas between; or "nothing"
--   seed=NUMBER      what differs is the same in each load with this number
--   count=NUMBER     the load ends after so many answers
--   status=NUMBER    the one status that is right; without it every one below 400 is
--   body=TEXT        the one body that is right

local ffi, bit = require("ffi"), require("bit")
ffi.cdef("int getpid(void); int kill(int pid, int signal);")
local INTERRUPT = 2

local options = {}
local threads = {}
local answers = 0
-- Global, because done() asks for them: answers that are not what they must be, and whether the
-- status was judged here, so that wrk's own count of those above 399 says nothing.
wrong = 0
judges_status = "no"

function setup(thread)
  table.insert(threads, thread)
end

-- What differs.

local random, hex = math.random, bit.tohex

local function word()
  return hex(random(0, 0x7fffffff))
end

-- For each name the pieces of text of a request that differ by it, and what they are where they
-- do not. The number of the request is in what must never come twice.
local differing = {
  path = {
    function(turn) return "/" .. turn .. "/" .. word() .. "?from=" .. turn .. "&to=" .. word() end,
    "/1/2f0c8a7e?from=1&to=7b1d3c5e",
  },
  original = { function(turn) return "/page/" .. turn .. "?from=" .. word() end, "/page/1" },
  referer = { function() return random(1000) end, 1 },
  validator = { function(turn) return turn .. "-" .. word() end, "1-5e0f77ab" },
  request = { function() return word() .. word() .. word() .. word() end, string.rep("5a", 16) },
  trace = {
    function() return word() .. word() .. word() .. word() .. "-" .. word() .. word() end,
    string.rep("6b", 16) .. "-" .. string.rep("7c", 8),
  },
  cookie = { function(turn) return word() .. turn end, "3f9d2c4b1" },
}
local named = { ids = { "request", "trace" } }

-- The lines of a file in turn.
local function lines_of(file)
  local lines, turn, once = {}, 0, options.once
  for line in io.lines(file) do table.insert(lines, line) end
  return function()
    if once and turn == #lines then wrong = wrong + 1 end
    turn = turn % #lines + 1
    return lines[turn]
  end
end

-- The pieces of a request: texts, and names of `differing`. What is given by wrk's own command
-- line comes at the end: Content-Length, Connection, the fields of a question.
local function pieces()
  local given = {}
  for name, value in pairs(wrk.headers) do given[name] = value end
  local host, session, asks = given["Host"], given["Cookie"], given["X-Forwarded-Uri"]
  for _, own in ipairs({ "Host", "Cookie", "Accept", "Sec-Fetch-Mode", "X-Forwarded-Uri" }) do
    given[own] = nil
  end
  local found = {
    -- A question has its own path, and another in a field.
    wrk.method .. " " .. wrk.path, asks and "" or "path", " HTTP/1.1\r\nHost: " .. host
      .. "\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
      .. "Chrome/139.0.0.0 Safari/537.36\r\nAccept: application/json, text/plain, */*"
      .. "\r\nReferer: http://" .. host .. "/board/", "referer",
    "\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9,zh;q=0.8"
      .. "\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-origin"
      .. "\r\nCookie: ", "session", (session and session .. "; " or "") .. "view=", "cookie",
    '\r\nIf-None-Match: "', "validator",
    '"\r\nX-Request-Id: ', "request", "\r\ntraceparent: 00-", "trace", "-01\r\n",
  }
  if asks then
    table.insert(found, "X-Forwarded-Uri: ")
    table.insert(found, "original")
    table.insert(found, "\r\n")
  end
  local rest = ""
  for name, value in pairs(given) do rest = rest .. name .. ": " .. value .. "\r\n" end
  if wrk.body then rest = rest .. "Content-Length: " .. #wrk.body .. "\r\n" end
  table.insert(found, rest .. "\r\n" .. (wrk.body or ""))
  return found
end

local function differ(names)
  local chosen = {}
  for name in names:gmatch("%w+") do
    for _, one in ipairs(named[name] or { name }) do chosen[one] = true end
  end
  differing.session = { function() return "" end, "" }
  if options.cookies then
    local sessions = lines_of(options.cookies)
    differing.session[1] = function() return sessions() .. "; " end
    chosen.session = true
  end
  -- Texts that stay are joined now, so that a request costs the load no more than what differs.
  local parts, makers, places = { "" }, {}, {}
  for _, piece in ipairs(pieces()) do
    local pair = differing[piece]
    if pair and chosen[piece] then
      table.insert(parts, "")
      table.insert(makers, pair[1])
      table.insert(places, #parts)
      table.insert(parts, "")
    else
      parts[#parts] = parts[#parts] .. (pair and pair[2] or piece)
    end
  end
  local seed = tonumber(options.seed or 0)
  math.randomseed(seed)
  local turn, concat = seed * 10000000, table.concat
  if #makers == 0 then
    local request = concat(parts)
    return function() return request end
  end
  return function()
    turn = turn + 1
    for number = 1, #makers do parts[places[number]] = makers[number](turn) end
    return concat(parts)
  end
end

local function in_turn(file)
  local requests = {}
  for line in io.lines(file) do
    local fields = {}
    for name, value in pairs(wrk.headers) do fields[name] = value end
    fields["Cookie"] = line
    table.insert(requests, wrk.format(nil, nil, fields))
  end
  local turn = 0
  return function()
    turn = turn % #requests + 1
    return requests[turn]
  end
end

local function judge(status, headers, body)
  if options.status and status ~= tonumber(options.status) then wrong = wrong + 1
  elseif options.body and body ~= options.body then wrong = wrong + 1 end
  if options.count then
    answers = answers + 1
    if answers == tonumber(options.count) then
      -- The thread ends now; wrk itself, which sleeps until its time is over, wakes at a signal.
      wrk.thread:stop()
      ffi.C.kill(ffi.C.getpid(), INTERRUPT)
    end
  end
end

function init(args)
  for _, argument in ipairs(args) do
    local name, value = argument:match("^(%w+)=(.*)$")
    options[name] = value
  end
  if options.upload or options.post then
    wrk.method = options.post and "POST" or "PUT"
    wrk.body = string.rep("x", tonumber(options.upload or options.post))
  end
  if options.differs then request = differ(options.differs)
  elseif options.cookies then request = in_turn(options.cookies) end
  if options.status then judges_status = "yes" end
  if options.status or options.body or options.count then response = judge end
end

-- One line of JSON; times are microseconds.
function done(summary, latency, requests)
  local errors, bad = summary.errors, 0
  for _, thread in ipairs(threads) do
    bad = bad + thread:get("wrong")
  end
  if threads[1]:get("judges_status") == "no" then bad = bad + errors.status end
  local failed, why = 0, {}
  local kinds = {
    connect = errors.connect, read = errors.read, write = errors.write,
    timeout = errors.timeout, wrong = bad,
  }
  for kind, count in pairs(kinds) do
    failed = failed + count
    if count > 0 then table.insert(why, count .. " " .. kind) end
  end
  io.write(string.format(
    '\n{"requests": %d, "duration": %d, "p50": %d, "p99": %d, "failed": %d, "why": "%s"}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    failed, table.concat(why, ", ")))
end
