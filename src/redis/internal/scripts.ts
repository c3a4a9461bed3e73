/**
 * The decisions as Lua: one script, one instant, all or nothing.
 *
 * How it holds together:
 *
 * - Times are microseconds of the server's clock. `now` never goes back: where the server's clock does, the key keeps the
 *   difference (`o`), so a clock that is set back neither frees nor locks anyone. In here instants are offsets from now,
 *   which are small and so exact.
 * - Whoever asks is judged in order, and never starts before the latest instant that was granted to anybody (`l`): so a
 *   slot that was reserved is not overtaken.
 * - What is granted is charged in the same step. A slot is charged at the instant that it is for.
 * - `v` changes with every change. A slot or a grant that nobody wants is taken back only if it is still the same, since
 *   otherwise others have been told when they may start by what it has left.
 * - A command that may fail, because of a key's type or the user's permissions, comes before the first write or after the
 *   last one: a script that fails half-way is not rolled back.
 * - Every write sets how long the keys live: until the state equals the initial state. It never makes that shorter, and
 *   leaves alone what parts it does not know remember: processes may have different policies, while one is rolled out.
 */
import { noise, rateNoise, wokenPatience } from "./rules.ts"

/**
 * The state of a key and the time. Every script begins with it.
 *
 * t: when it was last changed. o: what is added to the server's clock. v: version. l: the latest instant granted, q: the one
 * before a slot was reserved, u: the levels before that, and when. p: until when it is paused. f: the last fencing number.
 * n: how many have joined the line, w: how long each may be silent. k: until when what is charged may be settled, lows: how
 * low each bucket was meanwhile. Under its own name what each part remembers; rate: the level, in permits, and when;
 * sliding: the sum of its log; fixed: the end of a window and what is used of it, and the same of the one before; spacing:
 * the last three starts; gates: permits held.
 */
const prelude = `
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
-- What sums of fractions are off by does not make it a microsecond more.
local function up(micros) return ceil(micros - ${noise}) end
`

const decision = `
local rules, ask = cjson.decode(ARGV[2]), cjson.decode(ARGV[3])
local T, G = rules.timings, rules.gates
local lists = 1
for _, rule in ipairs(T) do if rule.kind == 'sliding' then lists = lists + 1 end end
-- A key of another type fails here, before the first write.
for i = 2, #KEYS do call(i <= lists and 'LLEN' or 'ZCARD', KEYS[i]) end
local function offset(at) return at and at - now or -huge end
local l, q, p = offset(S.l), offset(S.q), offset(S.p)
local watched = S.k and S.k > now
-- changed: what others were told may no longer hold. dirty: there is something to write.
local changed, dirty = false, hasSteppedBack

local level, log, fresh, logs = {}, {}, {}, 1
for i, rule in ipairs(T) do
  local s, kind = S[rule.field], rule.kind
  if kind == 'rate' then
    -- Below empty by what a late call may make up for.
    local least = -rule.grace / rule.interval
    level[i] = s and max(s[1] - (now - s[2]) / rule.interval, least) or least
  elseif kind == 'sliding' then
    logs = logs + 1
    log[i], fresh[i] = KEYS[logs], 0
    -- A log that has outlived its key would count on unseen.
    if not s then call('DEL', log[i]) end
    S[rule.field] = s or 0
    while S[rule.field] ~= 0 do
      local first = call('LINDEX', log[i], 0)
      if not first then S[rule.field] = 0 break end
      local at, cost = string.match(first, '(%S+) (%S+)')
      if at - now + rule.per > ${noise} then break end
      call('LPOP', log[i])
      S[rule.field], dirty = S[rule.field] - cost, true
    end
  elseif not s then
    S[rule.field] = kind == 'fixed' and { 0, 0, 0, 0 } or { -1e15, -1e15, -1e15 }
  end
end
local function watch()
  S.lows = S.lows or {}
  for i, rule in ipairs(T) do
    if rule.kind == 'rate' then S.lows[rule.field] = S.lows[rule.field] or {} end
  end
end
if watched then watch() else S.k, S.lows = nil, nil end

local function entry(at, cost) return string.format('%.0f %.0f', at, cost) end
local function flush(i)
  if fresh[i] > 0 then call('RPUSH', log[i], entry(now, fresh[i])) fresh[i] = 0 end
end

-- When a part would let this cost start, at or after an instant.
local function due(i, from, cost)
  local rule = T[i]
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
  local rule = T[i]
  local kind, s = rule.kind, S[rule.field]
  if kind == 'rate' then
    at = max(at, -rule.grace)
    if watched then
      -- How low it was before each charge, oldest first; a lower one makes those before it superfluous.
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
      local close = now + at + rule.per - (wall + at) % rule.per
      -- Right behind the last one: its end lay a little before the wall clock's, so this is the same boundary.
      if s[1] > 0 and close - s[1] < rule.per / 2 then close = close + rule.per end
      s[1], s[2], s[3], s[4] = close, 0, s[1], s[2]
    end
    s[2] = s[2] + cost
  else
    s[1], s[2], s[3] = now + up(at), s[1], s[2]
  end
end

-- Takes an amount out of the log, from what started at this instant.
local function lessen(i, at, amount)
  local rule = T[i]
  flush(i)
  local date = rule.grain > 0 and ceil(at / rule.grain) * rule.grain or at
  local from = -1
  while amount > 0 do
    local some = call('LRANGE', log[i], from - 63, from)
    if #some == 0 then return end
    for back = #some, 1, -1 do
      local d, cost = string.match(some[back], '(%S+) (%S+)')
      d, cost = tonumber(d), tonumber(cost)
      if d < date then return end
      if d == date then
        local less = min(cost, amount)
        call('LSET', log[i], from - (#some - back), entry(d, cost - less))
        S[rule.field], amount = S[rule.field] - less, amount - less
      end
    end
    from = from - 64
  end
end

-- What is left of slots that were returned would stay there until their instants have come and gone.
local function withdraw(i, at, amount)
  lessen(i, at, amount)
  while string.match(call('LINDEX', log[i], -1) or '', ' 0$') do call('RPOP', log[i]) end
end

local function unstart(s) s[1], s[2], s[3] = s[2], s[3], -1e15 end

-- What a bucket's level was before the slot was reserved, as of now; nothing where the slot did not charge it.
local function beforeSlot(rule)
  local before = S.u and S.u[rule.field]
  return before and max(before[1] - (now - before[2]) / rule.interval, -rule.grace / rule.interval)
end

-- 1. What was granted to calls that are gone, if nothing has changed since.
local back, returned = ask.returns, 0
if back and back.version == S.v then
  returned, changed = 1, true
  local slot, grants = back.slot, back.grants
  for i, rule in ipairs(T) do
    local kind, s = rule.kind, S[rule.field]
    local late, soon = slot and slot.timings[i] or 0, grants and grants.timings[i] or 0
    if kind == 'rate' then
      -- A slot that another part has put off was charged from then on.
      local before = beforeSlot(rule)
      if late > 0 and before then level[i] = before - soon
      elseif before then
        -- The slot stands, and with it what it found: the level then, or an empty bucket.
        local at = l / rule.interval
        level[i] = level[i] - (max(before, at) - max(before - soon, at))
        S.u[rule.field] = { before - soon, now }
      else level[i] = level[i] - soon end
      for _, low in ipairs(soon > 0 and watched and S.lows[rule.field] or {}) do
        if low[1] > grants.at then low[2] = max(0, low[2] - soon) end
      end
    elseif kind == 'sliding' then
      if late > 0 then withdraw(i, slot.at, late) end
      if soon > 0 then withdraw(i, grants.at, soon) end
    elseif kind == 'fixed' then
      if late > 0 then
        s[2] = s[2] - late
        -- It had opened a window that is still to come.
        if s[2] <= 0 and s[1] - rule.per > now then s[1], s[2], s[3], s[4] = s[3], s[4], 0, 0 end
      end
      -- A slot that stands may have opened the window after theirs.
      local used = soon > 0 and grants.at < s[3] and 4 or 2
      if soon > 0 then s[used] = max(0, s[used] - soon) end
    else
      if late > 0 then unstart(s) end
      if soon > 0 and s[1] == grants.at then unstart(s)
      elseif soon > 0 and s[2] == grants.at then s[2], s[3] = s[3], -1e15 end
    end
  end
  if slot then l = q end
end
-- What was granted beside a slot has come back, and nothing else has happened since: the slot may come back yet.
local stands = returned == 1 and not back.slot and not ask.settlements

-- 2. What calls turned out to have cost: more, or less, than they were charged. What comes back is what would still be
-- there had it never been charged.
for _, one in ipairs(ask.settlements or {}) do
  changed = true
  for i, rule in ipairs(T) do
    local more, kind, s = one.more[i], rule.kind, S[rule.field]
    -- A log is kept in order: behind a slot that is still to come.
    if more > 0 and kind ~= 'spacing' then charge(i, kind == 'sliding' and max(0, l) or 0, more)
    elseif more < 0 then
      if kind == 'rate' and watched then
        local lows, less = S.lows[rule.field], min(-more, max(0, level[i]))
        for _, low in ipairs(lows) do
          if low[1] > one.at then less = min(less, low[2]) end
        end
        level[i] = level[i] - less
        for _, low in ipairs(lows) do
          if low[1] > one.at then low[2] = low[2] - less end
        end
      elseif kind == 'sliding' then withdraw(i, one.at, -more)
      elseif kind == 'fixed' then
        if one.at < s[1] and one.at >= s[1] - rule.per then s[2] = max(0, s[2] + more) end
      elseif kind == 'spacing' and one.isUndone and s[1] == one.at then unstart(s) end
    end
  end
end

-- 3. Permits that come back: from those who say so, and from those who were silent for too long.
local ng, leases, line = #G, KEYS[logs + 1], KEYS[logs + 2]
local freed = false
local function giveBack(member)
  if call('ZREM', leases, member) == 0 then return end
  for name, amount in string.gmatch(member, ' ([^= ]+)=(%d+)') do
    S[name] = max(0, (S[name] or 0) - amount)
  end
  freed, changed = true, true
end
-- Who has no such part any more may still have permits to give back.
local leased = ng > 0 or ask.releases
if leased then
  -- Leases that have outlived their key, though a pause or another policy may have made it anew, count no more.
  if not S.w then call('DEL', leases, line) end
  for _, gate in ipairs(G) do S[gate.field] = S[gate.field] or 0 end
  S.w = S.w or {}
  for _, member in ipairs(call('ZRANGEBYSCORE', leases, '-inf', now)) do giveBack(member) end
  for _, member in ipairs(ask.releases) do giveBack(member) end
  if call('EXISTS', leases) == 0 then
    for _, gate in ipairs(G) do S[gate.field] = 0 end
  end
end

-- 4. Those who ask.
local me, head = ask.owner, nil
if ask.settleWithin then
  watched = true
  watch()
end

-- Whose turn it is to wait for permits; one that has not asked again for too long has lost it.
local function first()
  while true do
    head = call('ZRANGE', line, 0, 0)[1]
    if not head or head == me or (S.w[head] or 0) >= now then return end
    call('ZREM', line, head)
    S.w[head], dirty = nil, true
  end
end
if leased then first() end
local wasHead = head == me

local granted, reserved, wait, busy, part, open = 0, nil, nil, 0, 0, true
local id, fence = ask.firstLease or 0, max(S.f + 1, now)
local firstFence = fence
local function lease(want)
  local member = me .. ':' .. string.format('%.0f', id)
  for j, gate in ipairs(G) do
    if want[j] > 0 then member = member .. ' ' .. gate.field .. '=' .. string.format('%.0f', want[j]) end
  end
  if call('ZADD', leases, 'NX', string.format('%.0f', now + ask.ttl), member) == 1 then
    for j, gate in ipairs(G) do S[gate.field] = S[gate.field] + want[j] end
  end
  S.f, fence = fence, fence + 1
end
if p > ${noise} and not ask.isDry then open, wait = false, p end
for _, run in ipairs(ask.runs) do
  local cost, want, holds = run.timings, run.gates, false
  for j = 1, ng do if want[j] > 0 then holds = true end end
  for _ = 1, open and run.count or 0 do
    if holds then
      if head and head ~= me then busy, part, open = 1, #T + 1, false end
      for j, gate in ipairs(G) do
        if want[j] > 0 and S[gate.field] + want[j] > gate.limit then busy, part, open = 1, #T + j, false end
      end
      if not open then break end
    end
    local from = max(l, ask.since and granted < ask.waited and min(0, ask.since - now) or 0)
    if ask.isDry then from = max(from, p) end
    local at, tolerance = from, ${rateNoise}
    for i = 1, #T do
      if cost[i] > 0 then
        local d = due(i, at, cost[i])
        if d > at then at, part = d, i end
        if T[i].kind ~= 'rate' then tolerance = ${noise} end
      end
    end
    if ask.isDry then wait, open = max(at, 0), false break end
    if at <= tolerance then at = min(at, 0) else wait, open = at, false end
    if open or at <= ask.maxWait then
      if not open then
        S.u = {}
        for i, rule in ipairs(T) do
          if rule.kind == 'rate' and cost[i] > 0 then S.u[rule.field] = { level[i], now } end
        end
      end
      for i = 1, #T do if cost[i] > 0 then charge(i, at, cost[i]) end end
      if holds then lease(want) end
      if open then granted, id = granted + 1, id + 1 else q, reserved = l, at end
      l, changed, stands = at, true, false
    end
    if not open then break end
  end
  if not open then break end
end

-- 5. The line for permits: one place for each process. Who was served goes to its end.
local expiry, woken
if leased then
  if busy == 1 and ask.joins then
    if granted > 0 then call('ZREM', line, me) end
    if not call('ZSCORE', line, me) then
      S.n = S.n + 1
      call('ZADD', line, S.n, me)
    end
    S.w[me], dirty = now + ask.patience, true
  elseif p > ${noise} and ask.joins and #ask.runs > 0 then
    -- A pause is no reason to lose one's place.
    if call('ZSCORE', line, me) then S.w[me], dirty = now + ask.patience, true end
  elseif ask.joins and call('ZREM', line, me) == 1 then
    S.w[me], dirty = nil, true
  end
  if freed or wasHead then
    first()
    local free = ng == 0
    for _, gate in ipairs(G) do if S[gate.field] < gate.limit then free = true end end
    if free and head and head ~= me then
      woken = head
      S.w[head], dirty = now + ${wokenPatience}, true
    end
  end
  local oldest = call('ZRANGE', leases, 0, 0, 'WITHSCORES')
  if oldest[2] then expiry = max(0, oldest[2] - now) end
end

if changed or dirty then
  if changed then S.v = max(S.v + 1, now) end
  if changed and not reserved and not stands then S.u = nil end
  S.t = now
  local horizon = max(p, l, 0)
  if l > -huge then S.l = now + l end
  if reserved then S.q = q > -huge and now + q or 0 end
  -- Levels need not be known for longer than the key lives: once they are initial, no cost can come back.
  if ask.settleWithin and (granted > 0 or reserved) then S.k = max(S.k or 0, now + max(l, 0) + ask.settleWithin) end
  for i, rule in ipairs(T) do
    local kind, s = rule.kind, S[rule.field]
    if kind == 'rate' then
      S[rule.field] = { level[i], now }
      horizon = max(horizon, level[i] * rule.interval)
    elseif kind == 'sliding' then
      flush(i)
      if S[rule.field] > 0 then
        local longest = max(l, 0) + rule.per + rule.grain
        horizon = max(horizon, longest)
        keep(log[i], longest)
      end
    elseif kind == 'fixed' then horizon = max(horizon, s[1] - now + rule.per / 2)
    else horizon = max(horizon, s[1] + rule.interval - now) end
  end
  if ng > 0 then
    local newest = call('ZREVRANGE', leases, 0, 0, 'WITHSCORES')
    horizon = max(horizon, ask.patience, newest[2] and newest[2] - now or 0)
    keep(leases, horizon)
    keep(line, horizon)
  end
  save(horizon)
end
-- The user may lack permission for the channel: then processes look for free permits by themselves.
if woken then redis.pcall('PUBLISH', ask.channel .. woken, K) end
return {
  granted, reserved and up(reserved) or -1, wait and up(wait) or -1, busy, part, now, S.v, firstFence,
  expiry and ceil(expiry) or -1, p > ${noise} and 1 or 0, returned, reserved and now + up(reserved) or -1
}
`

const renewal = `
local ask, answers = cjson.decode(ARGV[2]), {}
for i, member in ipairs(ask.leases) do
  local expiry = call('ZSCORE', KEYS[2], member)
  answers[i] = expiry and tonumber(expiry) > now and 1 or 0
  if answers[i] == 1 then call('ZADD', KEYS[2], 'XX', string.format('%.0f', now + ask.ttl), member) end
end
for _, key in ipairs(KEYS) do keep(key, ask.ttl) end
return answers
`

const pausing = `
local duration = tonumber(ARGV[2])
S.p = duration > 0 and max(S.p or 0, now + duration) or nil
save(S.p and S.p - now or 0)
return 1
`

/** Judges, charges, takes back. Keys: that of the state, the logs, and where permits are leased the leases and the line. */
export const decide = prelude + decision

/** Gives leases more time; answers 0 for one that is gone. Keys: that of the state, and the leases. */
export const renew = prelude + renewal

/** Starts no call for a while; 0 ends that. Key: that of the state. */
export const pause = prelude + pausing
