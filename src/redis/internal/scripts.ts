/**
 * The decisions as Lua: one script, one instant, all or nothing. `protocol.ts` is the reference.
 *
 * - Times are microseconds of the server's clock; instants are offsets from now.
 * - Calls are decided about in order, and none starts before the latest instant that was granted (`l`), so no call passes a
 *   slot that was reserved.
 * - What is granted is charged in the same step. A slot is charged at its own instant.
 * - `v` changes with every change. A slot or a grant is taken back only if it is still the same: otherwise other calls have
 *   been granted instants that depend on it.
 * - A command that may fail, because of a key's type or the user's permissions, comes before the first write or after the
 *   last one: a script that fails half-way is not rolled back.
 * - Every write sets how long the keys live: until the state equals the initial state. It never makes that shorter, and
 *   keeps the state of parts that it does not know: processes may have different policies, while one is rolled out.
 */
import { meterFields, notifiedPatience, rateTolerance, rounding } from "./rules.ts"
import { meters, state } from "./script-state.ts"

/** The fields of a decision in the order in which they follow the leases in a reply. -1: false, or absent. */
export const replyFields = [
  "granted",
  "slotAt",
  "wait",
  "isBusy",
  "part",
  "now",
  "version",
  "fence",
  "nextExpiry",
  "isPaused",
  "hasReturned"
] as const

const decision = `
-- 1. What was granted to calls that are gone, if nothing has changed since.
local back, returned = ask.returns, false
if back and back.version == S.v then
  returned, changed = true, true
  local slot, grants = back.slot, back.grants
  for i, rule in ipairs(M) do
    local kind, s = rule.kind, S[rule.field]
    local late, soon = slot and slot.meters[i] or 0, grants and grants.meters[i] or 0
    if kind == 'rate' then
      -- A slot that another part has delayed was charged from then on.
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
        if s[2] <= 0 and beginOf(rule, s[1]) > now then s[1], s[2], s[3], s[4] = s[3], s[4], 0, 0 end
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
-- Only what was granted beside a slot has come back: the slot may come back later.
local stands = returned and not back.slot and not ask.settlements

-- 2. Actual costs instead of estimated ones. What comes back is what would still be there had it never been charged.
for _, one in ipairs(ask.settlements or {}) do
  -- What was granted before a reset is not settled.
  local isVoid = S.z and one.version < S.z
  changed = changed or not isVoid
  for i, rule in ipairs(isVoid and {} or M) do
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
        if one.at < s[1] and one.at >= beginOf(rule, s[1]) then s[2] = max(0, s[2] + more) end
      elseif kind == 'spacing' and one.isUndone and s[1] == one.at then unstart(s) end
    end
  end
end

-- 3. Permits that come back: by release, and from leases that have ended.
local np, leases, queue = #P, KEYS[logs + 1], KEYS[logs + 2]
local freed = false
local function giveBack(member)
  if call('ZREM', leases, member) == 0 then return end
  for name, amount in string.gmatch(member, ' ([^= ]+)=(%d+)') do
    S[name] = max(0, (S[name] or 0) - amount)
  end
  freed, changed = true, true
end
-- An update may have taken the pools away from a process that has permits to release.
local leased = np > 0 or ask.releases
if leased then
  -- Leases that have outlived their key count no more, also where a pause or another policy has made it anew.
  if not S.w then call('DEL', leases, queue) end
  for _, pool in ipairs(P) do S[pool.field] = S[pool.field] or 0 end
  S.w = S.w or {}
  for _, member in ipairs(call('ZRANGEBYSCORE', leases, '-inf', now)) do giveBack(member) end
  for _, member in ipairs(ask.releases) do giveBack(member) end
  if call('EXISTS', leases) == 0 then
    for _, pool in ipairs(P) do S[pool.field] = 0 end
  end
end

-- 4. The calls.
local me, head = ask.owner, nil
if ask.settleWithin then
  watched = true
  watch()
end

-- The first process in the queue for permits; one that has not asked again for too long has lost its place.
local function first()
  while true do
    head = call('ZRANGE', queue, 0, 0)[1]
    if not head or head == me or (S.w[head] or 0) >= now then return end
    call('ZREM', queue, head)
    S.w[head], dirty = nil, true
  end
end
if leased then first() end
local wasHead = head == me

local granted, reserved, wait, busy, part, open, ready = 0, nil, nil, false, 0, true, false
local id, fence = ask.firstLease or 0, max(S.f + 1, now)
local firstFence, names = fence, {}
local function lease(want)
  local member = me .. ':' .. string.format('%.0f', id)
  for j, pool in ipairs(P) do
    if want[j] > 0 then member = member .. ' ' .. pool.field .. '=' .. string.format('%.0f', want[j]) end
  end
  if call('ZADD', leases, 'NX', string.format('%.0f', now + ask.ttl), member) == 1 then
    for j, pool in ipairs(P) do S[pool.field] = S[pool.field] + want[j] end
  end
  S.f, fence, names[#names + 1] = fence, fence + 1, member
end
if p > ${rounding} and not ask.isDry then open, wait = false, p end
for _, run in ipairs(ask.runs) do
  local cost, want, holds = run.meters, run.pools, false
  for j = 1, np do if want[j] > 0 then holds = true end end
  for _ = 1, open and run.count or 0 do
    if holds then
      if head and head ~= me and not ask.isSure then busy, part, open = true, #M + 1, false end
      for j, pool in ipairs(P) do
        if want[j] > 0 and S[pool.field] + want[j] > pool.limit then busy, part, open = true, #M + j, false end
      end
      if not open then break end
    end
    local from = max(l, ask.since and granted < ask.waited and min(0, ask.since - now) or 0)
    if ask.isDry then from = max(from, p) end
    local at, tolerance = from, ${rateTolerance}
    for i = 1, #M do
      if cost[i] > 0 then
        local d = due(i, at, cost[i])
        if d > at then at, part = d, i end
        if M[i].kind ~= 'rate' then tolerance = ${rounding} end
      end
    end
    if ask.isDry then
      wait, open, ready = max(at, 0), false, at <= tolerance and p <= ${rounding}
      break
    end
    if at <= tolerance then at = min(at, 0) else wait, open = at, false end
    if open or at <= ask.maxWait then
      if not open then
        S.u = {}
        for i, rule in ipairs(M) do
          if rule.kind == 'rate' and cost[i] > 0 then S.u[rule.field] = { level[i], now } end
        end
      end
      for i = 1, #M do if cost[i] > 0 then charge(i, at, cost[i]) end end
      if holds then lease(want) end
      if open then granted, id = granted + 1, id + 1 else q, reserved = l, at end
      l, changed, stands = at, true, false
    end
    if not open then break end
  end
  if not open then break end
end

-- 5. The queue for permits: one place for each process. A process that was granted some goes to its end.
local expiry, woken
if leased then
  if busy and ask.joins then
    if granted > 0 then call('ZREM', queue, me) end
    if not call('ZSCORE', queue, me) then
      S.n = S.n + 1
      call('ZADD', queue, S.n, me)
    end
    S.w[me], dirty = now + ask.patience, true
  elseif p > ${rounding} and ask.joins and #ask.runs > 0 then
    -- It keeps its place in a pause.
    if call('ZSCORE', queue, me) then S.w[me], dirty = now + ask.patience, true end
  elseif ask.joins and call('ZREM', queue, me) == 1 then
    S.w[me], dirty = nil, true
  end
  if freed or wasHead then
    first()
    local free = np == 0
    for _, pool in ipairs(P) do if S[pool.field] < pool.limit then free = true end end
    if free and head and head ~= me then
      woken = head
      S.w[head], dirty = now + ${notifiedPatience}, true
    end
  end
  local oldest = call('ZRANGE', leases, 0, 0, 'WITHSCORES')
  if oldest[2] then expiry = max(0, oldest[2] - now) end
end

-- 6. What is left: nothing in a pause, before a reserved slot, or of permits for which a process waits.
local left = {}
if ask.asksLeft then
  local from = max(l, p, 0)
  local blocked = from > ${rateTolerance}
  local function add(permits, more, full)
    for _, one in ipairs({ permits, more < 5e14 and up(more) or -1, full < 5e14 and up(full) or -1 }) do
      left[#left + 1] = one
    end
  end
  for i, rule in ipairs(M) do
    local kind, s = rule.kind, S[rule.field]
    local limit, some = rule.capacity or rule.limit or 1, 0
    if blocked then some = 0
    elseif kind == 'rate' then some = math.floor(min(limit, max(0, limit - max(level[i], 0))))
    elseif kind == 'sliding' then some = max(0, limit - s)
    elseif kind == 'fixed' then some = now >= s[1] and limit or max(0, limit - s[2]) end
    if not blocked and some < limit and due(i, from, some + 1) <= ${rateTolerance} then some = some + 1 end
    add(some, due(i, from, min(some + 1, limit)), due(i, from, limit))
  end
  if np > 0 then first() end
  for _, pool in ipairs(P) do
    local isFree, used = not blocked and (not head or head == me), S[pool.field]
    add(isFree and max(0, pool.limit - used) or 0, huge, used > 0 and huge or from)
  end
end

if changed or dirty then
  if changed then S.v = max(S.v + 1, now) end
  if changed and not reserved and not stands then S.u = nil end
  S.t = now
  local horizon = max(p, l, 0)
  if l > -huge then S.l = now + l end
  if reserved then S.q = q > -huge and now + q or 0 end
  -- Levels are kept no longer than the key lives: once they are initial, no cost can come back.
  if ask.settleWithin and (granted > 0 or reserved) then S.k = max(S.k or 0, now + max(l, 0) + ask.settleWithin) end
  for i, rule in ipairs(M) do
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
  if np > 0 then
    local newest = call('ZREVRANGE', leases, 0, 0, 'WITHSCORES')
    horizon = max(horizon, ask.patience, newest[2] and newest[2] - now or 0)
    keep(leases, horizon)
    keep(queue, horizon)
  end
  save(horizon)
end
-- The user may lack permission for the channel: then processes poll.
if woken then redis.pcall('PUBLISH', ask.channel .. woken, K) end
local answer = {
  granted = granted, slotAt = reserved and now + up(reserved), wait = wait and up(wait), isBusy = busy, part = part,
  now = now, version = S.v, fence = firstFence, nextExpiry = expiry and ceil(expiry), isPaused = p > ${rounding},
  hasReturned = returned
}
-- The second value is for the script that asks several keys.
return { names, left, ${replyFields.map((field) => `answer.${field} or -1`).join(", ")} }, ready
`

/**
 * What `decide` is told before it begins. 1: to charge nothing. 2: that what is to be reported has been, and that the call could
 * start before the line for permits was brought up to date.
 */
const passes = `
if pass == 1 then ask.isDry = true end
if pass == 2 then ask.returns, ask.settlements, ask.isSure = nil, nil, true end
`

const together = `
local time = tonumber(ARGV[1])
if not time then local s = redis.call('TIME') time = s[1] * 1e6 + s[2] end
local requests, first, dry = {}, 1, false
for i = 2, #ARGV, 3 do
  local keys, count = {}, tonumber(ARGV[i])
  for j = 1, count do keys[j] = KEYS[first + j - 1] end
  first = first + count
  dry = dry or string.find(ARGV[i + 2], '"isDry":true', 1, true)
  requests[#requests + 1] = { keys, { string.format('%.0f', time), ARGV[i + 1], ARGV[i + 2] } }
end
local replies, blocked = {}, 0
for i, request in ipairs(requests) do
  local reply, ready = decide(request[1], request[2], 1)
  replies[i] = reply
  if not ready and blocked == 0 then blocked = i end
end
if blocked > 0 or dry then return { blocked, 0, replies } end
for i, request in ipairs(requests) do
  local reply = decide(request[1], request[2], 2)
  -- What is reported was reported with the first pass.
  reply[#reply] = replies[i][#reply]
  replies[i] = reply
end
return { 0, 1, replies }
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

const resetting = `
if not stored then return 1 end
-- The logs of sliding windows go with the next decision, which finds no sum of them.
for name in pairs(S) do if string.match(name, '${meterFields}') then S[name] = nil end end
for _, name in ipairs({ 'l', 'q', 'u', 'k', 'lows' }) do S[name] = nil end
S.v, S.t = max(S.v + 1, now), now
S.z = S.v
save(S.p and max(0, S.p - now) or 0)
return 1
`

/** Decides about a request. Keys: that of the state, the logs, and where permits are leased the leases and the queue. */
export const decide = state + meters + decision

/**
 * Decides about requests for several keys of one hash slot, of one call each, which all start or none: `decide` as a function,
 * which first asks each key, and then, if all are ready, charges each. Keys: those of each request, one after the other.
 * Arguments: the time, and for each request how many keys are its own, the rules, and the request.
 */
export const decideTogether = `
local function decide(KEYS, ARGV, pass)
${state + meters + passes + decision}
end
${together}`

/** Extends leases; answers 0 for one that is gone. Keys: that of the state, and the leases. */
export const renew = state + renewal

/** Grants nothing for a while; 0 ends that. Key: that of the state. */
export const pause = state + pausing

/** Forgets what is charged. Key: that of the state. */
export const reset = state + resetting
