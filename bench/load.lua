-- What wrk sends besides the request line and the fields of its own command line, and what it
-- says at the end. Arguments after "--", each NAME=VALUE:
--   upload=BYTES   a body, sent with PUT
--   cookies=FILE   a Cookie field for each request in turn, one value a line
--   vary=yes       Referer and If-None-Match, different in each request
--   status=NUMBER  the one status that is right; without it every one below 400 is
--   body=TEXT      the one body that is right

local options = {}
local threads = {}
-- Global, because done() asks for them: answers that are not what they must be, and whether the
-- status was judged here, so that wrk's own count of those above 399 says nothing.
wrong = 0
judges_status = "no"

function setup(thread)
  table.insert(threads, thread)
end

local function in_turn(file)
  local requests, turn = {}, 0
  for line in io.lines(file) do
    local fields = {}
    for name, value in pairs(wrk.headers) do fields[name] = value end
    fields["Cookie"] = line
    table.insert(requests, wrk.format(nil, nil, fields))
  end
  return function()
    turn = turn % #requests + 1
    return requests[turn]
  end
end

local function varied()
  local head, turn = wrk.format():sub(1, -3), 0
  return function()
    turn = turn + 1
    return head .. "Referer: http://127.0.0.1/page/" .. turn
      .. '\r\nIf-None-Match: "' .. turn .. '"\r\n\r\n'
  end
end

local function judge(status, headers, body)
  if options.status and status ~= tonumber(options.status) then wrong = wrong + 1
  elseif options.body and body ~= options.body then wrong = wrong + 1 end
end

function init(args)
  for _, argument in ipairs(args) do
    local name, value = argument:match("^(%w+)=(.*)$")
    options[name] = value
  end
  if options.upload then
    wrk.method = "PUT"
    wrk.body = string.rep("x", tonumber(options.upload))
  end
  if options.cookies then request = in_turn(options.cookies) end
  if options.vary then request = varied() end
  if options.status then judges_status = "yes" end
  if options.status or options.body then response = judge end
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
