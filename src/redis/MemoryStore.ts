/**
 * A {@link ThrottleStore} in this process, by the meters that throttles in memory have.
 *
 * @since 0.1.0
 * @module MemoryStore
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import { fixed } from "../internal/part/fixed.ts"
import type { Meter, Wall } from "../internal/part/meter.ts"
import { rate } from "../internal/part/rate.ts"
import { sliding } from "../internal/part/sliding.ts"
import { spacing } from "../internal/part/spacing.ts"
import { grace, noise, rateNoise, type Rule, wokenPatience } from "./internal/rules.ts"
import { type Decision, leaseOf, type Request, type StoreFailure, ThrottleStore } from "./ThrottleStore.ts"

/** What a key remembers. Instants are microseconds; meters count in nanoseconds. */
interface Key {
  readonly states: Map<string, unknown>
  /** By which the states were counted: another policy of the same kind goes on with them. */
  readonly meters: Map<string, Meter<any, any>>
  readonly leases: Map<string, number>
  readonly line: Map<string, number>
  readonly charges: Map<number, Charged>
  /** As of before the last slot was reserved. */
  beforeSlot: { readonly states: Map<string, unknown>; readonly latest: number } | undefined
  latest: number
  version: number
  fence: number
  pausedUntil: number
}

/** What was charged at an instant: by its tickets, one for each part, a return or a settlement is told. */
interface Charged {
  /** When it may be settled for the last time. */
  until: number
  readonly tickets: Map<string, unknown>
}

/** Whole microseconds: what sums of fractions are off by does not make it one more. */
const roundUp = (micros: number): number => Math.max(0, Math.ceil(micros - noise))

const meterOf = (rule: Rule): Meter<any, any> => {
  switch (rule.kind) {
    case "rate":
      return rate({ interval: rule.interval * 1e3, capacity: rule.capacity, lateness: grace * 1e3 })
    case "sliding":
      return sliding({ limit: rule.limit, per: rule.per * 1e3 })
    case "fixed":
      return fixed({ limit: rule.limit, per: rule.per * 1e3 })
    case "spacing":
      return spacing({ interval: rule.interval * 1e3, align: rule.align, fromEnd: false })
  }
}

const unused = (): Key => ({
  states: new Map(),
  meters: new Map(),
  leases: new Map(),
  line: new Map(),
  charges: new Map(),
  beforeSlot: undefined,
  latest: -Infinity,
  version: 0,
  fence: 0,
  pausedUntil: -Infinity
})

/** What a lease holds, from its name. */
const heldBy = (lease: string): ReadonlyArray<readonly [string, number]> =>
  lease.split(" ").slice(1).map((part) => {
    const [field = "", amount] = part.split("=")
    return [field, Number(amount)]
  })

/**
 * A store whose clock shows microseconds; `wall` gives the wall clock's milliseconds at one of its instants in
 * nanoseconds.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (now: () => number, wall: (at: number) => number): ThrottleStore => {
  const keys = new Map<string, Key>()
  const listeners = new Map<string, Queue.Queue<string, StoreFailure>>()
  const keyOf = (name: string): Key => {
    let key = keys.get(name)
    if (key === undefined) keys.set(name, key = unused())
    return key
  }
  return {
    decide: (request) => Effect.sync(() => decide(keyOf(request.key), request, now(), wall, listeners)),
    renew: (name, leases, ttl) =>
      Effect.sync(() => {
        const key = keyOf(name)
        return leases.map((lease) => {
          const isHeld = (key.leases.get(lease) ?? -Infinity) > now()
          if (isHeld) key.leases.set(lease, now() + ttl)
          return isHeld
        })
      }),
    pause: (name, micros) =>
      Effect.sync(() => {
        const key = keyOf(name)
        key.pausedUntil = micros === 0 ? -Infinity : Math.max(key.pausedUntil, now() + micros)
      }),
    wakeups: (channel) =>
      Effect.acquireRelease(
        Effect.tap(
          Queue.unbounded<string, StoreFailure>(),
          (queue) => Effect.sync(() => listeners.set(channel, queue))
        ),
        (queue) =>
          Effect.suspend(() => {
            listeners.delete(channel)
            return Queue.shutdown(queue)
          })
      )
  }
}

/** Closes what was charged at an instant, where it is refunded no more. */
const close = (key: Key, at: number, isOver: (field: string, ticket: unknown) => boolean): void => {
  for (const [field, ticket] of key.charges.get(at)?.tickets ?? []) {
    const meter = key.meters.get(field)
    if (meter === undefined || !isOver(field, ticket)) continue
    for (const states of [key.states, key.beforeSlot?.states]) {
      const state = states?.get(field)
      if (state !== undefined) states!.set(field, meter.close(state, ticket))
    }
  }
}

const decide = (
  key: Key,
  request: Request,
  now: number,
  wall: Wall,
  listeners: ReadonlyMap<string, Queue.Queue<string, StoreFailure>>
): Decision => {
  const { owner, rules } = request
  const meters = rules.timings.map(meterOf)
  const fields = rules.timings.map(({ field }) => field)
  const state = (i: number): unknown => key.states.get(fields[i]!) ?? meters[i]!.initial
  let changed = false
  rules.timings.forEach(({ field, kind }, i) => {
    const former = key.meters.get(field)
    if (kind === "rate" && former !== undefined && former.interval !== meters[i]!.interval) {
      const adopt = (old: unknown) => meters[i]!.adopt(old, former, now * 1e3)
      key.states.set(field, adopt(state(i)))
      key.beforeSlot?.states.set(field, adopt(key.beforeSlot.states.get(field)))
    }
    key.meters.set(field, meters[i]!)
  })

  const due = (from: number, costs: ReadonlyArray<number>) => {
    let at = from * 1e3
    let part = 0
    let tolerance = rateNoise
    for (let i = 0; i < meters.length; i++) {
      const cost = costs[i]!
      if (cost === 0) continue
      const later = meters[i]!.readyAt(state(i), at, cost, wall)
      if (later > at) part = i + 1
      at = later
      if (rules.timings[i]!.kind !== "rate") tolerance = noise
    }
    return { at: at / 1e3, part, tolerance }
  }
  const charge = (at: number, costs: ReadonlyArray<number>) => {
    const known = key.charges.get(at)
    const tickets = new Map(known?.tickets)
    meters.forEach((meter, i) => {
      const cost = costs[i]!
      if (cost === 0) return
      const instant = rules.timings[i]!.kind === "rate" ? Math.max(at, now - grace) : Math.max(roundUp(at), now)
      const before = state(i)
      // A charge that is never refunded costs nothing to open, here.
      const opened = meter.open(meter.charge(before, instant * 1e3, cost, wall), before)
      key.states.set(fields[i]!, opened.state)
      tickets.set(fields[i]!, opened.ticket)
    })
    close(key, at, (field, ticket) => tickets.get(field) !== ticket)
    const until = Math.max(at, now) + Math.max(request.settleWithin, 1e6)
    key.charges.set(at, { until: Math.max(until, known?.until ?? 0), tickets })
    changed = true
  }
  const settle = (states: Map<string, unknown>, at: number, more: ReadonlyArray<number>, isUndone: boolean) => {
    const tickets = key.charges.get(at)?.tickets
    meters.forEach((meter, i) => {
      const field = fields[i]!
      const { kind } = rules.timings[i]!
      const state = states.get(field) ?? meter.initial
      // A start is a start, whatever it turns out to have cost: only one that is undone leaves spacing.
      if (more[i] === 0 || (kind === "spacing" && !isUndone)) return
      if (more[i]! > 0) {
        const at = kind === "sliding" ? Math.max(now, roundUp(key.latest)) : now
        states.set(field, meter.charge(state, at * 1e3, more[i]!, wall))
      } else if (tickets?.has(field)) states.set(field, meter.refund(state, tickets.get(field), now * 1e3, -more[i]!))
    })
    changed = true
  }

  const { returns } = request
  const hasReturned = returns !== undefined && returns.version === key.version
  if (hasReturned) {
    if (returns.slot !== undefined && key.beforeSlot !== undefined) {
      for (const [field, before] of key.beforeSlot.states) key.states.set(field, before)
      key.latest = key.beforeSlot.latest
    }
    if (returns.grants !== undefined) {
      const { at, timings } = returns.grants
      const less = timings.map((n) => -n)
      settle(key.states, at, less, true)
      // The slot beside them stands, and may come back yet.
      if (returns.slot === undefined && key.beforeSlot !== undefined) settle(key.beforeSlot.states, at, less, true)
    }
    changed = true
  }
  for (const { at, isUndone, more } of request.settlements) settle(key.states, at, more, isUndone)

  let freed = false
  for (const lease of request.releases) freed = key.leases.delete(lease) || freed
  for (const [lease, until] of key.leases) if (until <= now) freed = key.leases.delete(lease) || freed
  const held = new Map<string, number>()
  for (const lease of key.leases.keys()) {
    for (const [field, amount] of heldBy(lease)) held.set(field, (held.get(field) ?? 0) + amount)
  }
  const first = (): string | undefined => {
    for (const [waiting, until] of key.line) {
      if (waiting === owner || until >= now) return waiting
      key.line.delete(waiting)
    }
    return undefined
  }
  const wasFirst = first() === owner

  const fence = Math.max(key.fence + 1, now)
  let [granted, lease, leased] = [0, request.firstLease, 0]
  let slot: Decision["slot"]
  let wait: number | undefined
  let part = 0
  let isBusy = false
  const take = (gates: ReadonlyArray<number>) => {
    if (gates.every((amount) => amount === 0)) return
    key.fence = fence + leased++
    key.leases.set(leaseOf(rules, owner, lease, gates), now + request.ttl)
    rules.gates.forEach(({ field }, j) => held.set(field, (held.get(field) ?? 0) + gates[j]!))
  }
  const isPaused = key.pausedUntil > now + noise
  if (isPaused && !request.isDry) wait = key.pausedUntil - now
  else {judging: for (const { count, gates, timings } of request.runs) {
      for (let i = 0; i < count; i++) {
        const missing = rules.gates.findIndex(({ field, limit }, j) =>
          gates[j]! > 0 && (held.get(field) ?? 0) + gates[j]! > limit
        )
        const ahead = first()
        if (missing >= 0 || (gates.some((amount) => amount > 0) && ahead !== undefined && ahead !== owner)) {
          isBusy = true
          part = rules.timings.length + 1 + Math.max(0, missing)
          break judging
        }
        const since = request.since !== undefined && granted < request.waited ? Math.min(request.since, now) : now
        const judged = due(Math.max(key.latest, since, request.isDry ? key.pausedUntil : -Infinity), timings)
        part = judged.part
        if (request.isDry) {
          wait = Math.max(0, judged.at - now)
          break judging
        }
        if (judged.at <= now + judged.tolerance) {
          const at = Math.min(judged.at, now)
          charge(at, timings)
          if (at < now) key.charges.set(now, key.charges.get(at)!)
          take(gates)
          key.latest = at
          granted++
          lease++
          continue
        }
        wait = judged.at - now
        if (wait <= request.maxWait) {
          const at = roundUp(judged.at)
          key.beforeSlot = {
            states: new Map(fields.map((field, i) => [field, state(i)])),
            latest: key.latest
          }
          charge(judged.at, timings)
          key.charges.set(at, key.charges.get(judged.at)!)
          take(gates)
          key.latest = judged.at
          slot = { at, wait: at - now }
        }
        break judging
      }
    }}

  if (rules.gates.length + request.releases.length > 0) {
    if (isBusy && request.joins) {
      if (granted > 0) key.line.delete(owner)
      key.line.set(owner, now + request.patience)
    } else if (isPaused && request.joins && request.runs.length > 0) {
      if (key.line.has(owner)) key.line.set(owner, now + request.patience)
    } else if (request.joins) key.line.delete(owner)
    const next = first()
    const isFree = rules.gates.length === 0 || rules.gates.some(({ field, limit }) => (held.get(field) ?? 0) < limit)
    if ((freed || wasFirst) && isFree && next !== undefined && next !== owner) {
      const queue = listeners.get(request.channel + next)
      if (queue !== undefined) Queue.offerUnsafe(queue, request.key)
      key.line.set(next, now + wokenPatience)
    }
  }
  if (changed || freed) key.version = Math.max(key.version + 1, now)
  for (const [at, { tickets, until }] of key.charges) {
    if (until >= now) continue
    close(key, at, () => true)
    // The same tickets may stand under another instant as well: they are closed once.
    tickets.clear()
    key.charges.delete(at)
  }
  const expiry = Math.min(...key.leases.values()) - now
  return {
    granted,
    slot,
    wait: wait === undefined || wait === Infinity ? undefined : roundUp(wait),
    isBusy,
    part,
    now,
    version: key.version,
    fence,
    nextExpiry: expiry === Infinity ? undefined : expiry,
    isPaused,
    hasReturned
  }
}

/**
 * A store on Effect's Clock, so also on a TestClock: to test, or try, what shares a policy with others.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<ThrottleStore> = Layer.effect(
  ThrottleStore,
  Effect.map(Clock.Clock, (clock) => {
    const nanos = () => Number(clock.monotonicTimeNanosUnsafe())
    return make(() => Math.floor(nanos() / 1e3), (at) => clock.currentTimeMillisUnsafe() + (at - nanos()) / 1e6)
  })
)
