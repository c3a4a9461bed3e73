/**
 * The state of a key in Redis, and the meters, as Lua.
 *
 * `now` never goes back: where the server's clock does, the key keeps the difference (`o`). Instants are offsets from now,
 * which are small and so exact.
 */
import { rounding } from "./rules.ts"

/**
 * The state of a key and the time. Every script begins with it.
 *
 * t: when it was last changed. o: what is added to the server's clock. v: version. l: the latest instant granted, q: the one
 * before a slot was reserved, z: the version that the last reset made, u: the levels before that, and when. p: the end of a pause. f: the last fencing number.
 * n: how many have joined the queue, w: until when each keeps its place. k: until when what is charged may be settled, lows:
 * the lowest levels of each bucket since. Under its own name the state of each part; rate: the level, in permits, and when;
 * sliding: the sum of its log; fixed: the end of a window and what is used of it, and the same of the one before; spacing:
 * the last three starts; pools: permits held.
 */
export const state = `
local call, K = redis.call, KEYS[1]
local max, min, ceil, huge = math.max, math.min, math.ceil, math.huge
local wall = tonumber(ARGV[1])
if not wall then local s = call('TIME') wall = s[1] * 1e6 + s[2] end
local stored = call('GET', K)
local S = stored and cmsgpack.unpack(stored) or { t = wall, o = 0, v = 0, f = 0, n = 0 }
local now = wall + S.o
local hasSteppedBack = now < S.t
if hasSteppedBack then S.o, now = S.o + S.t - now, S.t end
local function life(key, micros) return string.format('%.0f', max(ceil(micros / 1000) + 1000, call('PTTL', key))) end
local function keep(key, micros) call('PEXPIRE', key, life(key, micros)) end
local function save(micros) call('SET', K, cmsgpack.pack(S), 'PX', life(K, micros)) end
-- An error of rounding does not make it a microsecond more.
local function up(micros) return ceil(micros - ${rounding}) end
`

/** The meters of the rules (M) and their states: when each lets a call start (`due`), and what it charges. */
export const meters = `
local rules, ask = cjson.decode(ARGV[2]), cjson.decode(ARGV[3])
local M, P = rules.meters, rules.pools
local lists = 1
for _, rule in ipairs(M) do if rule.kind == 'sliding' then lists = lists + 1 end end
-- A key of another type fails here, before the first write.
for i = 2, #KEYS do call(i <= lists and 'LLEN' or 'ZCARD', KEYS[i]) end
local function offset(at) return at and at - now or -huge end
local l, q, p = offset(S.l), offset(S.q), offset(S.p)
local watched = S.k and S.k > now
-- changed: what was granted to others may no longer hold. dirty: there is something to write.
local changed, dirty = false, hasSteppedBack

local level, log, fresh, logs = {}, {}, {}, 1
for i, rule in ipairs(M) do
  local s, kind = S[rule.field], rule.kind
  if kind == 'rate' then
    -- Below empty by as much as a late call may be charged earlier.
    local least = -rule.grace / rule.interval
    level[i] = s and max(s[1] - (now - s[2]) / rule.interval, least) or least
  elseif kind == 'sliding' then
    logs = logs + 1
    log[i], fresh[i] = KEYS[logs], 0
    -- A log that has outlived its key counts no more.
    if not s then call('DEL', log[i]) end
    S[rule.field] = s or 0
    while S[rule.field] ~= 0 do
      local first = call('LINDEX', log[i], 0)
      if not first then S[rule.field] = 0 break end
      local at, cost = string.match(first, '(%S+) (%S+)')
      if at - now + rule.per > ${rounding} then break end
      call('LPOP', log[i])
      S[rule.field], dirty = S[rule.field] - cost, true
    end
  elseif not s then
    S[rule.field] = kind == 'fixed' and { 0, 0, 0, 0 } or { -1e15, -1e15, -1e15 }
  end
end
local function watch()
  S.lows = S.lows or {}
  for i, rule in ipairs(M) do
    if rule.kind == 'rate' then S.lows[rule.field] = S.lows[rule.field] or {} end
  end
end
if watched then watch() else S.k, S.lows = nil, nil end

local function entry(at, cost) return string.format('%.0f %.0f', at, cost) end
local function flush(i)
  if fresh[i] > 0 then call('RPUSH', log[i], entry(now, fresh[i])) fresh[i] = 0 end
end

-- The window of the clock that contains an instant: when it begins and ends. Beyond the edges of a calendar that are told
-- windows are as long as the last one.
local function window(rule, at)
  local here, edges, per = wall + at, rule.edges, rule.per
  local past = here % per
  if edges then
    local i, n = 1, #edges
    while i < n and edges[i + 1] <= here do i = i + 1 end
    per = i < n and edges[i + 1] - edges[i] or edges[n] - edges[n - 1]
    past = i < n and here - edges[i] or (here - edges[n]) % per
  end
  return now + at - past, now + at + per - past
end
-- When the window of a calendar began that ends then. Half of its usual length before its end is well within it.
local function beginOf(rule, close)
  return rule.edges and window(rule, close - now - rule.per / 2) or close - rule.per
end

-- When a part would let this cost start, at or after an instant.
local function due(i, from, cost)
  local rule = M[i]
  local kind, s = rule.kind, S[rule.field]
  if kind == 'rate' then return max(from, (level[i] - (rule.capacity - cost)) * rule.interval) end
  if kind == 'sliding' then
    local missing, at = s + cost - rule.limit, 0
    if missing <= 0 then return from end
    flush(i)
    while missing > 0 do
      local some = call('LRANGE', log[i], at, at + 63)
      if #some == 0 then return from end
      for _, one in ipairs(some) do
        local date, amount = string.match(one, '(%S+) (%S+)')
        missing = missing - amount
        if missing <= 0 then return max(from, date - now + rule.per) end
      end
      at = at + 64
    end
  end
  if kind == 'fixed' then
    if now + from >= s[1] or s[2] + cost <= rule.limit then return from end
    return s[1] - now
  end
  if not rule.align then return max(from, s[1] - now + rule.interval) end
  -- On the clock; the wall clock may have been adjusted a little since the last one.
  from = max(from, s[1] + rule.interval - min(2000, rule.interval / 2) - now)
  local past = (wall + from) % rule.interval
  return past < 1 and from or from + rule.interval - past
end

local function charge(i, at, cost)
  local rule = M[i]
  local kind, s = rule.kind, S[rule.field]
  if kind == 'rate' then
    at = max(at, -rule.grace)
    if watched then
      -- Its level before each charge, oldest first; a lower one makes those before it superfluous.
      local all, low = S.lows[rule.field], max(0, level[i] - at / rule.interval)
      while #all > 0 and all[#all][2] >= low do table.remove(all) end
      if #all >= 16 then all[2][2] = min(all[1][2], all[2][2]) table.remove(all, 1) end
      table.insert(all, { now + max(at, 0), low })
    end
    level[i] = max(level[i], at / rule.interval) + cost
    return
  end
  at = max(at, 0)
  if kind == 'sliding' then
    S[rule.field] = s + cost
    if rule.grain > 0 then
      local date = ceil((now + at) / rule.grain) * rule.grain
      local d, amount = string.match(call('LINDEX', log[i], -1) or '', '(%S+) (%S+)')
      if tonumber(d) == date then call('LSET', log[i], -1, entry(date, amount + cost))
      else call('RPUSH', log[i], entry(date, cost)) end
    elseif at == 0 then
      fresh[i] = fresh[i] + cost
    else
      flush(i)
      call('RPUSH', log[i], entry(now + up(at), cost))
    end
  elseif kind == 'fixed' then
    if now + at >= s[1] then
      local _, close = window(rule, at)
      -- Right behind the last one: its end lay a little before the wall clock's, so this is the same boundary.
      if s[1] > 0 and close - s[1] < (rule.shortest or rule.per / 2) then
        close = rule.edges and select(2, window(rule, close - now)) or close + rule.per
      end
      s[1], s[2], s[3], s[4] = close, 0, s[1], s[2]
    end
    s[2] = s[2] + cost
  else
    s[1], s[2], s[3] = now + up(at), s[1], s[2]
  end
end

-- Takes an amount out of the log, from what started at this instant, and the empty entries from its end.
local function withdraw(i, at, amount)
  local rule = M[i]
  flush(i)
  local date, from = rule.grain > 0 and ceil(at / rule.grain) * rule.grain or at, -1
  while amount > 0 do
    local some = call('LRANGE', log[i], from - 63, from)
    local d
    for back = #some, 1, -1 do
      local cost
      d, cost = string.match(some[back], '(%S+) (%S+)')
      d, cost = tonumber(d), tonumber(cost)
      if d == date then
        local less = min(cost, amount)
        call('LSET', log[i], from - (#some - back), entry(d, cost - less))
        S[rule.field], amount = S[rule.field] - less, amount - less
      end
    end
    if #some == 0 or d < date then break end
    from = from - 64
  end
  while string.match(call('LINDEX', log[i], -1) or '', ' 0$') do call('RPOP', log[i]) end
end

local function unstart(s) s[1], s[2], s[3] = s[2], s[3], -1e15 end

-- What a bucket's level was before the slot was reserved, as of now; nothing where the slot did not charge it.
local function beforeSlot(rule)
  local before = S.u and S.u[rule.field]
  return before and max(before[1] - (now - before[2]) / rule.interval, -rule.grace / rule.interval)
end
`
