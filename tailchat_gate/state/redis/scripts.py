"""The Lua scripts of the store on Redis, which the server runs atomically.

All keys have one prefix; its hash tag puts them on one node of a Cluster:

- `log`: the random mark of each write, scored by the number of its last change. If a process does
  not find the mark that it read last, the data were emptied, replaced or set back.
- `changes`: "KIND KEY" of every record, scored by the number of its last change.
- `until`: the same, scored by its expiry.
- `records:KIND`: the documents by their keys.
- `use:KIND:KEY`: a reservation; `uses:KIND`, `harmless:KIND`: their keys, by expiry and by age.
- `outcome:KIND:KEY`, `about:SUB`: an outcome, and the outcomes about a person, by their ends.
- `rates:known`, `rates:strangers`: the buckets of rate limits, by when each is full again.
- `rates:at`: when a bucket was last charged.

The last four have times of the server's clock, because clocks of gates differ.
"""

from typing import Final

from tailchat_gate.state.store import MAX_TEXT

#: The longest document of a record, in bytes; JSON takes six for a character at most.
_MOST_BYTES: Final = 8 * MAX_TEXT
#: Returns a document, "" for none and for one that no gate has written: it may be too long to be
#: sent in time, and would keep all other records from being read.
_DOCUMENT: Final = f"""
local function document(records, key)
    if redis.call('HSTRLEN', records, key) > {_MOST_BYTES} then return '' end
    return redis.call('HGET', records, key) or ''
end
"""

#: KEYS log, changes. ARGV prefix, mark that was read, after, limit, mark that was written.
#: Returns whether both marks are known, the last mark and its number, and numbers and documents.
READ: Final = f"""{_DOCUMENT}
local head = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
local known = 1
if ARGV[2] ~= '' and not redis.call('ZSCORE', KEYS[1], ARGV[2]) then known = 0 end
if ARGV[5] ~= '' and not redis.call('ZSCORE', KEYS[1], ARGV[5]) then known = 0 end
local found = redis.call(
    'ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[3], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[4])
local rows = {{}}
for i = 1, #found, 2 do
    local kind, key = string.match(found[i], '^(%S+) (.*)$')
    local text = kind and document(ARGV[1] .. 'records:' .. kind, key) or ''
    rows[#rows + 1] = {{found[i + 1], kind or '', key or '', text}}
end
return {{known, head[1] or '', head[2] or '0', rows}}
"""

#: KEYS changes. ARGV prefix, then kind and key of each record.
#: Returns the number and the document of each, "0" and "" where there is none.
CURRENT: Final = f"""{_DOCUMENT}
local rows = {{}}
for i = 2, #ARGV, 2 do
    local seq = redis.call('ZSCORE', KEYS[1], ARGV[i] .. ' ' .. ARGV[i + 1])
    local text = document(ARGV[1] .. 'records:' .. ARGV[i], ARGV[i + 1])
    rows[#rows + 1] = {{seq or '0', text}}
end
return rows
"""

#: KEYS log, changes, until. ARGV prefix, mark, most marks, then kind, key, the number that its
#: record must still have, document ("" deletes it), expiry ("" for none).
#: Returns 1, and 0 if another process was faster. A repetition with the same mark does nothing.
WRITE: Final = """
if redis.call('ZSCORE', KEYS[1], ARGV[2]) then return 1 end
for i = 4, #ARGV, 5 do
    local seq = redis.call('ZSCORE', KEYS[2], ARGV[i] .. ' ' .. ARGV[i + 1])
    if (seq or '0') ~= ARGV[i + 2] then return 0 end
end
local last = tonumber(redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2] or '0')
for i = 4, #ARGV, 5 do
    local member = ARGV[i] .. ' ' .. ARGV[i + 1]
    local records = ARGV[1] .. 'records:' .. ARGV[i]
    if ARGV[i + 3] == '' then
        redis.call('HDEL', records, ARGV[i + 1])
        redis.call('ZREM', KEYS[2], member)
        redis.call('ZREM', KEYS[3], member)
    else
        last = last + 1
        redis.call('HSET', records, ARGV[i + 1], ARGV[i + 3])
        redis.call('ZADD', KEYS[2], last, member)
        if ARGV[i + 4] == '' then
            redis.call('ZREM', KEYS[3], member)
        else
            redis.call('ZADD', KEYS[3], ARGV[i + 4], member)
        end
    end
end
redis.call('ZADD', KEYS[1], last + 1, ARGV[2])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[3]))
return 1
"""

#: KEYS changes, until. ARGV prefix, the present second, the seconds for which records are kept
#: after they expire, most. What is dropped has expired by the server's clock, too: one gate's
#: clock may be far ahead of all others.
SWEEP: Final = """
local now = math.min(tonumber(ARGV[2]), tonumber(redis.call('TIME')[1]))
local last = now - tonumber(ARGV[3])
local function drop(member)
    local kind, key = string.match(member, '^(%S+) (.*)$')
    redis.call('HDEL', ARGV[1] .. 'records:' .. kind, key)
    redis.call('ZREM', KEYS[1], member)
    redis.call('ZREM', KEYS[2], member)
end
local old = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', last, 'LIMIT', 0, ARGV[4])
for _, member in ipairs(old) do drop(member) end
local recent = redis.call('ZRANGEBYSCORE', KEYS[2], last, now, 'LIMIT', 0, ARGV[4])
for _, member in ipairs(recent) do
    if string.sub(member, 1, 8) == 'erasure ' then drop(member) end
end
for _, kind in ipairs(redis.call('SMEMBERS', ARGV[1] .. 'kinds')) do
    local uses = ARGV[1] .. 'uses:' .. kind
    for _, key in ipairs(redis.call('ZRANGEBYSCORE', uses, '-inf', last, 'LIMIT', 0, ARGV[4])) do
        redis.call('DEL', ARGV[1] .. 'use:' .. kind .. ':' .. key)
        redis.call('ZREM', uses, key)
        redis.call('ZREM', ARGV[1] .. 'harmless:' .. kind, key)
    end
end
return #old
"""

#: ARGV prefix, kind, key, nonce, seconds since, until, lifetime in ms, room, last second of the
#: expired. Returns "granted" or "full", or "taken" with the seconds since, outcome and its end.
RESERVE: Final = """
local use = KEYS[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local uses, harmless = ARGV[1] .. 'uses:' .. ARGV[2], ARGV[1] .. 'harmless:' .. ARGV[2]
local function drop(key)
    redis.call('DEL', ARGV[1] .. 'use:' .. ARGV[2] .. ':' .. key)
    redis.call('ZREM', uses, key)
    redis.call('ZREM', harmless, key)
end
local found = redis.call('HMGET', use, 'at', 'nonce', 'outcome_until')
if found[1] then
    if ARGV[4] ~= '' and found[2] == ARGV[4] then return {'granted'} end
    local outcome = redis.call('GET', ARGV[1] .. 'outcome:' .. ARGV[2] .. ':' .. ARGV[3])
    return {'taken', string.format('%.6f', now - found[1]), outcome or '', found[3] or '0'}
end
if ARGV[4] == '' then return {'granted'} end
if redis.call('ZCARD', uses) >= tonumber(ARGV[8]) then
    local old = redis.call('ZRANGEBYSCORE', uses, '-inf', ARGV[9], 'LIMIT', 0, 1000)
    for _, key in ipairs(old) do drop(key) end
    if redis.call('ZCARD', uses) >= tonumber(ARGV[8]) then
        local first = redis.call('ZRANGE', harmless, 0, 0)[1]
        if first then drop(first) end
    end
    if redis.call('ZCARD', uses) >= tonumber(ARGV[8]) then return {'full'} end
end
redis.call('HSET', use, 'at', string.format('%.6f', now - ARGV[5]), 'nonce', ARGV[4])
redis.call('PEXPIRE', use, ARGV[7])
redis.call('ZADD', uses, ARGV[6], ARGV[3])
redis.call('SADD', ARGV[1] .. 'kinds', ARGV[2])
return {'granted'}
"""

#: KEYS use, outcome. ARGV prefix, kind, key, nonce, spent, outcome, its end, its ms, sub.
SETTLE: Final = """
local found = redis.call('HMGET', KEYS[1], 'at', 'nonce')
if found[2] ~= ARGV[4] then return 0 end
redis.call('HSET', KEYS[1], 'outcome_until', ARGV[7])
local harmless = ARGV[1] .. 'harmless:' .. ARGV[2]
if ARGV[5] == '0' then
    redis.call('ZADD', harmless, found[1], ARGV[3])
else
    redis.call('ZREM', harmless, ARGV[3])
end
if ARGV[6] ~= '' and tonumber(ARGV[8]) > 0 then
    redis.call('SET', KEYS[2], ARGV[6], 'PX', ARGV[8])
    if ARGV[9] ~= '' then
        local about = ARGV[1] .. 'about:' .. ARGV[9]
        local now = tonumber(redis.call('TIME')[1])
        redis.call('ZREMRANGEBYSCORE', about, '-inf', now)
        redis.call('ZADD', about, now + math.ceil(ARGV[8] / 1000), KEYS[2])
        redis.call('EXPIREAT', about, redis.call('ZRANGE', about, -1, -1, 'WITHSCORES')[2])
    end
end
return 1
"""

#: KEYS use, outcome. ARGV prefix, kind, key, nonce.
RELEASE: Final = """
if redis.call('HGET', KEYS[1], 'nonce') ~= ARGV[4] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('ZREM', ARGV[1] .. 'uses:' .. ARGV[2], ARGV[3])
redis.call('ZREM', ARGV[1] .. 'harmless:' .. ARGV[2], ARGV[3])
return 1
"""

#: KEYS known, strangers, at. ARGV most buckets of each, then for each charge which of the two, its
#: bucket and the seconds to add. Returns in how many seconds each bucket is full again.
#: A repetition adds them twice, so fewer requests pass, never more. Without room, the bucket that
#: is full soonest is dropped. If the clock was set back, all buckets are dropped, which makes them
#: full: else everybody would have to wait for as long as the clock was set back.
CHARGE: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local before = tonumber(redis.call('GET', KEYS[3]) or '0')
if now < before - 1 then redis.call('DEL', KEYS[1], KEYS[2]) end
redis.call('SET', KEYS[3], string.format('%.6f', now))
local found = {}
for i = 2, #ARGV, 3 do
    local key = KEYS[tonumber(ARGV[i])]
    local due = tonumber(redis.call('ZSCORE', key, ARGV[i + 1]) or '0')
    due = string.format('%.6f', math.max(due, now) + tonumber(ARGV[i + 2]))
    redis.call('ZADD', key, due, ARGV[i + 1])
    found[#found + 1] = string.format('%.6f', due - now)
end
for i = 1, 2 do
    redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
    redis.call('ZREMRANGEBYRANK', KEYS[i], 0, -1 - tonumber(ARGV[1]))
    local last = redis.call('ZRANGE', KEYS[i], -1, -1, 'WITHSCORES')[2]
    if last then redis.call('EXPIREAT', KEYS[i], math.ceil(last)) end
end
return found
"""

#: KEYS known. ARGV a sub. Deletes the buckets of a person, not those of tokens with that name.
FORGET_RATES: Final = """
local tail = ':' .. ARGV[1]
local found = {}
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    local named = string.sub(member, -#tail) == tail
    if named and string.sub(member, 1, 19) ~= 'requests_per_token:' then
        found[#found + 1] = member
    end
end
for _, member in ipairs(found) do redis.call('ZREM', KEYS[1], member) end
return #found
"""

#: KEYS log, which names the node of a Cluster. Returns what the server says of its memory.
MEMORY: Final = "return redis.call('INFO', 'memory')"

#: KEYS about:SUB. ARGV whether to delete them. Returns how many outcomes are about a person.
OUTCOMES: Final = """
local count = 0
for _, key in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    count = count + redis.call('EXISTS', key)
    if ARGV[1] == '1' then redis.call('DEL', key) end
end
if ARGV[1] == '1' then redis.call('DEL', KEYS[1]) end
return count
"""
