/**
 * The decisions of a store as pure functions of a key's state, by the meters of throttles in memory: the reference for other
 * stores. Instants are microseconds of the store's clock; meters count in nanoseconds.
 */
import { meterOf } from "../../internal/part/kinds.ts"
import type { Meter, Wall } from "../../internal/part/meter.ts"
import type { Decision, Left, Request, Return, Together } from "../ThrottleStore.ts"
import {
  grace,
  limitOf,
  meterRule,
  micros,
  nanos,
  notifiedPatience,
  rateTolerance,
  rounding,
  type Rule,
  type Rules
} from "./rules.ts"

/** The state of a key. */
export interface State {
  /** The meters' states, by the names of their parts. */
  readonly states: ReadonlyMap<string, unknown>
  /** The rules by which they were counted. Another policy of the same kind goes on with them. */
  readonly rules: ReadonlyMap<string, Rule>
  readonly charges: ReadonlyMap<number, Charge>
  readonly leases: ReadonlyMap<string, Lease>
  /** The processes that wait for permits, in order, and until when each keeps its place. */
  readonly queue: ReadonlyMap<string, number>
  /** As it was before the last slot was reserved. */
  readonly beforeSlot: { readonly states: ReadonlyMap<string, unknown>; readonly latest: number } | undefined
  /** The latest instant that was granted. No call starts before it. */
  readonly latest: number
  readonly version: number
  /** The version that the last reset made. What was granted before it is not settled. */
  readonly resetVersion: number
  /** The last fencing number. */
  readonly fence: number
  readonly pausedUntil: number
}

/** What was charged at an instant that was granted. */
interface Charge {
  /** When it may be settled for the last time. */
  readonly until: number
  /** Its tickets by part. What is charged twice at one instant is refunded by the second one. */
  readonly tickets: ReadonlyArray<readonly [field: string, ticket: unknown]>
}

interface Lease {
  readonly until: number
  readonly held: ReadonlyArray<readonly [field: string, amount: number]>
}

export const initial: State = {
  states: new Map(),
  rules: new Map(),
  charges: new Map(),
  leases: new Map(),
  queue: new Map(),
  beforeSlot: undefined,
  latest: -Infinity,
  version: 0,
  resetVersion: 0,
  fence: 0,
  pausedUntil: -Infinity
}

export interface Outcome {
  readonly state: State
  readonly decision: Decision
  /** Whether the first call of a dry request could start now. */
  readonly isReady: boolean
  /** The process to notify that permits are free. */
  readonly notify: string | undefined
}

type Writable<M> = M extends ReadonlyMap<infer K, infer V> ? Map<K, V> : M

/** One decision at work, on a copy of the state. */
interface Step {
  readonly state: { -readonly [K in keyof State]: Writable<State[K]> }
  readonly request: Request
  readonly now: number
  readonly wall: Wall
  readonly parts: ReadonlyArray<Part>
  /** Whether what was granted to others may no longer hold. */
  isChanged: boolean
  readonly isSure: boolean
  isReady: boolean
}

interface Part extends Pick<Rule, "field" | "kind"> {
  readonly meter: Meter<any, any>
}

/** In whole microseconds. An error of rounding does not make it one more. */
const roundUp = (time: number): number => Math.max(0, Math.ceil(time - rounding))

/** A wait, if it has an end. */
const finite = (wait: number): number | undefined => wait === Infinity ? undefined : roundUp(wait)

const copyOf = (state: State): Step["state"] => ({
  ...state,
  states: new Map(state.states),
  rules: new Map(state.rules),
  charges: new Map(state.charges),
  leases: new Map(state.leases),
  queue: new Map(state.queue)
})

/** `isSure`: the calls could start a moment ago, before the line for permits was brought up to date. */
export const decide = (before: State, request: Request, now: number, wall: Wall, isSure = false): Outcome => {
  const state = copyOf(before)
  const parts = adopt(state, request.rules, now)
  const step: Step = { state, request, now, wall, parts, isSure, isChanged: false, isReady: false }
  const { returns, settlements } = request
  const hasReturned = returns !== undefined && returns.version === state.version
  if (hasReturned) takeBack(step, returns)
  for (const { at, isUndone, more, version } of settlements) {
    if (version < state.resetVersion) continue
    step.isChanged = true
    state.states = settle(step, state.states, at, more, isUndone)
  }
  const isFreed = release(step)
  const wasFirst = firstInQueue(step) === request.owner
  const granted = grant(step)
  const notify = updateQueue(step, granted, isFreed || wasFirst)
  if (step.isChanged || isFreed) state.version = Math.max(state.version + 1, now)
  closeExpired(step)
  const expiry = Math.min(...[...state.leases.values()].map(({ until }) => until)) - now
  const decision: Decision = {
    ...granted,
    now,
    version: state.version,
    nextExpiry: expiry === Infinity ? undefined : expiry,
    isPaused: isPaused(step),
    hasReturned,
    left: request.asksLeft ? leftOf(step) : []
  }
  return { state, decision, isReady: step.isReady, notify }
}

/** A request that reports nothing, since it has been reported. */
const withoutReports = (request: Request): Request => ({
  ...request,
  returns: undefined,
  settlements: [],
  releases: []
})

/**
 * Decides about requests for different keys, of one call each, which all start or none. Each is asked first whether its call
 * could start now; if all could and none of the requests is dry, they are granted.
 */
export const decideTogether = (
  requests: ReadonlyArray<Request>,
  stateOf: (key: string) => State,
  now: number,
  wall: Wall
): { readonly answer: Together; readonly outcomes: ReadonlyArray<Outcome> } => {
  const asked = requests.map((request) => decide(stateOf(request.key), { ...request, isDry: true }, now, wall))
  const blocked = asked.findIndex(({ isReady }) => !isReady)
  const isGranted = blocked < 0 && !requests.some(({ isDry }) => isDry)
  const granted = isGranted
    ? asked.map(({ state }, i) => decide(state, withoutReports(requests[i]!), now, wall, true))
    : asked
  const decisions = granted.map(({ decision }, i) => ({
    ...decision,
    hasReturned: asked[i]!.decision.hasReturned
  }))
  return {
    answer: { decisions, isGranted, blocked: blocked < 0 ? undefined : blocked },
    outcomes: granted.map((outcome, i) => ({ ...outcome, notify: outcome.notify ?? asked[i]!.notify }))
  }
}

/** Extends leases; false for one that has ended. */
export const renew = (
  state: State,
  names: ReadonlyArray<string>,
  ttl: number,
  now: number
): { readonly state: State; readonly answers: ReadonlyArray<boolean> } => {
  const leases = new Map(state.leases)
  const answers = names.map((name) => {
    const lease = leases.get(name)
    if (lease === undefined || lease.until <= now) return false
    leases.set(name, { ...lease, until: now + ttl })
    return true
  })
  return { state: { ...state, leases }, answers }
}

export const pause = (state: State, duration: number, now: number): State => ({
  ...state,
  pausedUntil: duration === 0 ? -Infinity : Math.max(state.pausedUntil, now + duration)
})

/** Forgets what is charged. */
export const reset = (state: State, now: number): State => {
  const version = Math.max(state.version + 1, now)
  return {
    ...state,
    states: new Map(),
    charges: new Map(),
    beforeSlot: undefined,
    latest: -Infinity,
    version,
    resetVersion: version
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Meters
// ---------------------------------------------------------------------------------------------------------------------

/** The parts of the rules. A bucket of another interval carries over what is spent. */
const adopt = (state: Step["state"], { meters }: Rules, now: number): ReadonlyArray<Part> =>
  meters.map((rule) => {
    const { field, kind } = rule
    const meter = meterOf(meterRule(rule))
    const former = state.rules.get(field)
    state.rules.set(field, rule)
    if (kind === "rate" && former?.kind === "rate" && former.interval !== rule.interval) {
      const formerMeter = meterOf(meterRule(former))
      const adopted = (states: ReadonlyMap<string, unknown>) =>
        states.has(field)
          ? new Map(states).set(field, meter.adopt(states.get(field), formerMeter, nanos(now)))
          : new Map(states)
      state.states = adopted(state.states)
      if (state.beforeSlot) state.beforeSlot = { ...state.beforeSlot, states: adopted(state.beforeSlot.states) }
    }
    return { field, kind, meter }
  })

const stateOf = ({ state }: Step, { field, meter }: Part): unknown => state.states.get(field) ?? meter.initial

/** When all parts let a call start, which of them delays it most, and how much sooner than that is soon enough. */
const readyAt = (step: Step, from: number, costs: ReadonlyArray<number>) => {
  let at = nanos(from)
  let part = 0
  let tolerance = rateTolerance
  step.parts.forEach((one, i) => {
    const cost = costs[i]!
    if (cost === 0) return
    const later = one.meter.readyAt(stateOf(step, one), at, cost, step.wall)
    if (later > at) part = i + 1
    at = later
    if (one.kind !== "rate") tolerance = rounding
  })
  return { at: micros(at), part, tolerance }
}

/** Charges a call that is ready at an instant. `granted`: the instant that the answer names for it. */
const charge = (step: Step, at: number, granted: number, costs: ReadonlyArray<number>): void => {
  const { now, request, state, wall } = step
  const known = state.charges.get(granted)
  const tickets = [...(known?.tickets ?? [])]
  step.parts.forEach((part, i) => {
    const cost = costs[i]!
    if (cost === 0) return
    const instant = part.kind === "rate" ? Math.max(at, now - grace) : Math.max(roundUp(at), now)
    const before = stateOf(step, part)
    const opened = part.meter.open(part.meter.charge(before, nanos(instant), cost, wall), before)
    state.states.set(part.field, opened.state)
    tickets.push([part.field, opened.ticket])
  })
  const until = Math.max(granted, now) + Math.max(request.settleWithin, 1e6)
  state.charges.set(granted, { until: Math.max(until, known?.until ?? 0), tickets })
  step.isChanged = true
}

/** Closes what may not be settled any more. */
const closeExpired = ({ now, state }: Step): void => {
  const closed = (states: ReadonlyMap<string, unknown>, { tickets }: Charge): Map<string, unknown> => {
    const next = new Map(states)
    for (const [field, ticket] of tickets) {
      if (next.has(field)) next.set(field, meterOf(meterRule(state.rules.get(field)!)).close(next.get(field), ticket))
    }
    return next
  }
  for (const [at, one] of state.charges) {
    if (one.until >= now) continue
    state.states = closed(state.states, one)
    if (state.beforeSlot) state.beforeSlot = { ...state.beforeSlot, states: closed(state.beforeSlot.states, one) }
    state.charges.delete(at)
  }
}

/** The states once the cost of what was charged at an instant has changed by `more`. */
const settle = (
  { now, parts, state, wall }: Step,
  states: ReadonlyMap<string, unknown>,
  at: number,
  more: ReadonlyArray<number>,
  isUndone: boolean
): Map<string, unknown> => {
  const tickets = new Map(state.charges.get(at)?.tickets)
  const next = new Map(states)
  parts.forEach(({ field, kind, meter }, i) => {
    const before = next.get(field) ?? meter.initial
    // A start is a start, whatever it has cost: only one that is undone leaves spacing.
    if (more[i] === 0 || (kind === "spacing" && !isUndone)) return
    if (more[i]! > 0) {
      // A log is kept in order: behind a slot that is still to come.
      const instant = kind === "sliding" ? Math.max(now, roundUp(state.latest)) : now
      next.set(field, meter.charge(before, nanos(instant), more[i]!, wall))
    } else if (tickets.has(field)) {
      next.set(field, meter.refund(before, tickets.get(field), nanos(now), -more[i]!))
    }
  })
  return next
}

/** Takes back what was granted to calls that did not start. */
const takeBack = (step: Step, { grants, slot }: Return): void => {
  const { state } = step
  step.isChanged = true
  if (slot !== undefined && state.beforeSlot !== undefined) {
    for (const [field, before] of state.beforeSlot.states) state.states.set(field, before)
    state.latest = state.beforeSlot.latest
  }
  if (grants === undefined) return
  const less = grants.meters.map((amount) => -amount)
  state.states = settle(step, state.states, grants.at, less, true)
  // The slot beside them stands, and may come back later.
  if (slot === undefined && state.beforeSlot !== undefined) {
    const states = settle(step, state.beforeSlot.states, grants.at, less, true)
    state.beforeSlot = { ...state.beforeSlot, states }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Grants
// ---------------------------------------------------------------------------------------------------------------------

type Granted = Pick<Decision, "granted" | "slot" | "wait" | "isBusy" | "part" | "leases" | "fence">

const isPaused = ({ now, state }: Step): boolean => state.pausedUntil > now + rounding

/** Grants calls in order, and a slot for the first that cannot start. */
const grant = (step: Step): Granted => {
  const { now, request, state } = step
  const { isDry, maxWait, owner, since, waited } = request
  const held = heldBy(step)
  const leases: Array<string> = []
  const fence = Math.max(state.fence + 1, now)
  let granted = 0
  const end = (rest: Partial<Granted>): Granted => ({
    granted,
    slot: undefined,
    wait: undefined,
    isBusy: false,
    part: 0,
    leases,
    fence,
    ...rest
  })
  if (isPaused(step) && !isDry) return end({ wait: finite(state.pausedUntil - now) })
  const lease = (amounts: ReadonlyArray<number>): void => {
    if (amounts.every((amount) => amount === 0)) return
    state.fence = fence + leases.length
    const name = `${owner}:${request.firstLease + granted}`
    leases.push(name)
    const fields = request.rules.pools.map(({ field }, j) => [field, amounts[j]!] as const)
    for (const [field, amount] of fields) held.set(field, (held.get(field) ?? 0) + amount)
    state.leases.set(name, { until: now + request.ttl, held: fields })
  }
  let part = 0
  for (const { count, meters, pools } of request.runs) {
    for (let i = 0; i < count; i++) {
      const missing = request.rules.pools.findIndex(({ field, limit }, j) =>
        pools[j]! > 0 && (held.get(field) ?? 0) + pools[j]! > limit
      )
      const first = firstInQueue(step)
      const isBehind = !step.isSure && first !== undefined && first !== owner
      if (missing >= 0 || (isBehind && pools.some((amount) => amount > 0))) {
        return end({ isBusy: true, part: request.rules.meters.length + 1 + Math.max(0, missing) })
      }
      const from = since !== undefined && granted < waited ? Math.min(since, now) : now
      const ready = readyAt(step, Math.max(state.latest, from, isDry ? state.pausedUntil : -Infinity), meters)
      part = ready.part
      if (isDry) {
        step.isReady = ready.at <= now + ready.tolerance && !isPaused(step)
        return end({ part, wait: finite(ready.at - now) })
      }
      if (ready.at <= now + ready.tolerance) {
        state.latest = Math.min(ready.at, now)
        charge(step, state.latest, now, meters)
        lease(pools)
        granted++
        continue
      }
      const wait = finite(ready.at - now)
      if (ready.at - now > maxWait) return end({ part, wait })
      const at = roundUp(ready.at)
      state.beforeSlot = {
        states: new Map(step.parts.map((one) => [one.field, stateOf(step, one)])),
        latest: state.latest
      }
      charge(step, ready.at, at, meters)
      lease(pools)
      state.latest = ready.at
      return end({ part, wait, slot: { at, wait: at - now } })
    }
  }
  return end({ part })
}

// ---------------------------------------------------------------------------------------------------------------------
// What is left
// ---------------------------------------------------------------------------------------------------------------------

/** What is left of each part. Nothing in a pause, before a reserved slot, or of permits for which a process waits. */
const leftOf = (step: Step): ReadonlyArray<Left> => {
  const { now, request: { owner, rules }, state, wall } = step
  const from = Math.max(now, state.latest, state.pausedUntil)
  const isBlocked = from - now > rateTolerance
  const held = heldBy(step)
  const first = firstInQueue(step)
  return [
    ...step.parts.map((part, i): Left => {
      const limit = limitOf(rules.meters[i]!)
      const before = stateOf(step, part)
      const until = (cost: number) => finite(micros(part.meter.readyAt(before, nanos(from), cost, wall)) - now)
      const some = isBlocked ? 0 : part.meter.remaining(before, nanos(now), wall)
      const isMore = !isBlocked && some < limit && (until(some + 1) ?? Infinity) <= rateTolerance
      const permits = isMore ? some + 1 : some
      return { permits, untilMore: until(Math.min(permits + 1, limit)), untilFull: until(limit) }
    }),
    ...rules.pools.map(({ field, limit }): Left => {
      const isFree = !isBlocked && (first === undefined || first === owner)
      const used = held.get(field) ?? 0
      return {
        permits: isFree ? Math.max(0, limit - used) : 0,
        untilMore: undefined,
        untilFull: used > 0 ? undefined : finite(from - now)
      }
    })
  ]
}

// ---------------------------------------------------------------------------------------------------------------------
// Permits
// ---------------------------------------------------------------------------------------------------------------------

/** Ends the leases that are released, and those that were not renewed in time. Returns whether permits came back. */
const release = ({ now, request, state }: Step): boolean => {
  const before = state.leases.size
  for (const name of request.releases) state.leases.delete(name)
  for (const [name, { until }] of state.leases) if (until <= now) state.leases.delete(name)
  return state.leases.size < before
}

const heldBy = ({ state }: Step): Map<string, number> => {
  const all = new Map<string, number>()
  for (const { held } of state.leases.values()) {
    for (const [field, amount] of held) all.set(field, (all.get(field) ?? 0) + amount)
  }
  return all
}

/** The first process in the queue. One that has not asked again for too long has lost its place. */
const firstInQueue = ({ now, request, state }: Step): string | undefined => {
  for (const [waiting, until] of state.queue) {
    if (waiting === request.owner || until >= now) return waiting
    state.queue.delete(waiting)
  }
  return undefined
}

/** Gives the process that asks its place in the queue, or takes it away. Returns the process to notify. */
const updateQueue = (step: Step, { granted, isBusy }: Granted, mayBeFree: boolean): string | undefined => {
  const { now, request, state } = step
  const { joins, owner, patience, releases, rules, runs } = request
  if (rules.pools.length + releases.length === 0) return undefined
  if (isBusy && joins) {
    // A process that was granted some goes to the end.
    if (granted > 0) state.queue.delete(owner)
    state.queue.set(owner, now + patience)
  } else if (isPaused(step) && joins && runs.length > 0) {
    if (state.queue.has(owner)) state.queue.set(owner, now + patience)
  } else if (joins) state.queue.delete(owner)
  const next = firstInQueue(step)
  const held = heldBy(step)
  const isFree = rules.pools.length === 0 || rules.pools.some(({ field, limit }) => (held.get(field) ?? 0) < limit)
  if (!mayBeFree || !isFree || next === undefined || next === owner) return undefined
  state.queue.set(next, now + notifiedPatience)
  return next
}
