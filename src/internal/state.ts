/**
 * What a limiter is made of, and the questions it can be asked without changing it: who holds what, and when may this
 * start?
 */
import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Ref from "effect/Ref"
import type * as Types from "effect/Types"
import * as Agenda from "./agenda.ts"
import { type Ask, askOne } from "./ask.ts"
import * as Line from "./line.ts"
import * as Observe from "./observe.ts"
import type { Wall } from "./part/meter.ts"
import * as Pauses from "./pauses.ts"
import type { Plan, Timing } from "./plan.ts"
import * as Pool from "./pool.ts"
import * as Time from "./time.ts"

export type AnyFiber = Fiber.Fiber<unknown, unknown>

/** A part that decides by time. An update gives it other numbers and leaves it what it has counted. */
export interface Clockwork extends Types.Mutable<Timing> {
  readonly state: Ref.Ref<unknown>
  /** What the state will be if the call that is being looked at starts. */
  next: unknown
  /** What those in line ask of this part, and how many of them do. */
  total: number
  calls: number
}

/** What an update replaces. Parts that it keeps are the same objects in the new arrays. */
export interface Parts {
  readonly timings: ReadonlyArray<Clockwork>
  readonly gates: ReadonlyArray<Pool.Pool>
}

/**
 * What ends a call that holds permits: its fiber and nothing else ("call"); its fiber, or whoever has its permit and
 * cancels that ("permit"); whoever closes the scope ("scope").
 */
export type Tie = "call" | "permit" | "scope"

/** A call that runs and holds permits. */
export interface Holder extends Line.Place<Holder> {
  readonly fiber: AnyFiber
  readonly ask: Ask
  /** The parts that its ask is about. */
  readonly parts: Parts
  readonly tie: Tie
}

/** What a call was charged by one part, and by which it may be refunded. */
export interface Charge {
  readonly part: Clockwork
  readonly amount: number
  readonly ticket: unknown
}

/** A call that could not start at once. */
export interface Call extends Line.Place<Call> {
  ask: Ask
  /** The parts that its ask is about. */
  parts: Parts
  readonly fiber: AnyFiber
  readonly arrival: number
  /** For how long the throttle had been paused until then. */
  readonly pausedBefore: number
  /** Whether the wait has a span, and whether anyone else hears of it. */
  readonly traced: boolean
  readonly heard: boolean
  /** How many waited when it arrived, itself included. */
  readonly queued: number
  /** Nanoseconds it expected to wait when it arrived; undefined where nobody hears of it or nobody knows. */
  readonly expected: number | undefined
  /** What it runs when its turn comes. */
  readonly self: Effect.Effect<any, any, any>
  readonly tie: Tie
  /** Where its charges are noted, if it may be settled later. */
  readonly charges: Array<Charge> | undefined
  state: "waiting" | "started" | "gone"
  /** Whether it started while the policy was in shadow: then it takes no permits of Semaphores. */
  startedInShadow: boolean
  /** Nanoseconds that it would still have to wait, where that has become more than `maxWait` allows. */
  tooLong: number | undefined
  /** When it may start; undefined until it is the head and the permits it asks for are free. */
  due: number | undefined
  /** Whether it found too few permits free when it was the head. */
  short: boolean
  /** Lets its fiber go on; set while that is parked. */
  resume: ((effect: Effect.Effect<any, any, any>) => void) | undefined
  /** Whether it is to be judged soon. */
  woken: boolean
  /** The head's timer: a fiber that sleeps. */
  timer: AnyFiber | undefined
}

export interface Limiter {
  plan: Plan
  parts: Parts
  /** The cost of a call that names none: one permit. */
  one: Ask
  readonly time: Time.Time
  readonly wall: Wall
  readonly line: Line.Line<Call>
  /** Those who hold permits. */
  readonly holders: Line.Line<Holder>
  readonly counters: Observe.Counters & { waited: number; longestWait: number }
  readonly series: Observe.Series
  /** Since when the present head has been the head, all on time: when the one before it was due, or gave up. */
  headSince: number
  /** In shadow: what calls would do after their starts. */
  readonly agenda: Agenda.Agenda
  /** In shadow: when permits came back last, or when an update may have added some. In force: when the last update was. */
  permitsSince: number
  /** How late the last start was, and until when the calls that come are judged as if they had come as much earlier. */
  late: number
  lateUntil: number
  /** Nobody starts before this. */
  pausedUntil: number
  readonly pauses: Pauses.Pauses
  /** Set where it may be that it is closed, paused or in shadow. */
  barred: boolean
  /** How many calls may still be settled. */
  open: number
  pumping: boolean
  closed: boolean
  /** Called when a call is over, last of all: who lent the limiter may take it back then. */
  whenOver: (() => void) | undefined
}

/**
 * Sleeps are whole microseconds, rounded down, so that adding fractions (in here, or in
 * the clock) never makes one end just after the millisecond it was meant for. What is due
 * within this much (1 µs, in nanoseconds) is due.
 */
export const noise = 1_000

export const makeUnsafe = (plan: Plan, series: Observe.Series, time: Time.Time): Limiter => ({
  plan,
  parts: { timings: plan.timings.map(clockwork), gates: plan.holdings.map(Pool.make) },
  one: askOne(plan),
  time,
  wall: time.wall,
  line: Line.make(),
  holders: Line.make(),
  counters: { ...Observe.counters(), waited: 0, longestWait: 0 },
  series,
  headSince: -Infinity,
  agenda: Agenda.make(),
  permitsSince: -Infinity,
  late: 0,
  lateUntil: -Infinity,
  pausedUntil: -Infinity,
  pauses: Pauses.none(),
  barred: plan.shadow,
  open: 0,
  pumping: false,
  closed: false,
  whenOver: undefined
})

export const clockwork = (part: Timing): Clockwork => ({
  ...part,
  state: Ref.makeUnsafe(part.meter.initial),
  next: undefined,
  total: 0,
  calls: 0
})

/** Reads the clock. */
export const time = (limiter: Limiter): number => Time.now(limiter.time)

export const stateOf = (part: Clockwork): unknown => part.state.ref.current

export const hasPermits = (limiter: Limiter, ask: Ask): boolean => {
  const { gates } = limiter.parts
  for (let i = 0; i < gates.length; i++) {
    if (ask.holdings[i]! > gates[i]!.free) return false
  }
  return true
}

/** The first instant from `now` on at which anybody could start: a pause holds back all. */
export const fromNow = (limiter: Limiter, now: number): number => Math.max(now, limiter.pausedUntil)

/** The instant, at or after `from`, at which every timing part would let it start. */
export const dueFrom = (limiter: Limiter, ask: Ask, from: number): number => {
  // Paused until somebody resumes it.
  if (from === Infinity) return Infinity
  const { timings } = limiter.parts
  let due = from
  for (let i = 0; i < timings.length; i++) {
    const amount = ask.timings[i]!
    const part = timings[i]!
    if (amount > 0) due = part.meter.readyAt(stateOf(part), due, amount, limiter.wall)
  }
  return due === from || limiter.plan.rounds === 1 ? due : agreed(limiter, ask, due, timings.map(stateOf))
}

/** The same for other states than the present ones, and where the parts must be asked in turn until all agree. */
export const agreed = (limiter: Limiter, ask: Ask, from: number, states: ReadonlyArray<unknown>): number => {
  if (from === Infinity) return Infinity
  let due = from
  for (let round = 0; round < limiter.plan.rounds; round++) {
    limiter.parts.timings.forEach(({ meter }, i) => {
      if (ask.timings[i]! > 0) due = meter.readyAt(states[i], due, ask.timings[i]!, limiter.wall)
    })
    if (due === from) break
    from = due
  }
  return due
}

/** Whether a newcomer may start now, as far as the meters are not needed to say. It never passes those who wait. */
export const isFree = (limiter: Limiter, ask: Ask): boolean =>
  !isBarred(limiter) && ask.never === undefined && limiter.line.size === 0 && hasPermits(limiter, ask)

/** Whether a newcomer would start at `now`, were the policy in force. */
export const canStart = (limiter: Limiter, ask: Ask, now: number): boolean =>
  ask.never === undefined && limiter.line.size === 0 && hasPermits(limiter, ask) &&
  dueFrom(limiter, ask, fromNow(limiter, now)) <= now + noise

/** Whether nobody starts by just coming. Three questions behind one flag: each costs every call 5 ns. */
const isBarred = (limiter: Limiter): boolean => {
  if (!limiter.barred) return false
  // A pause that is over need not be looked at again.
  limiter.barred = limiter.closed || limiter.plan.shadow || limiter.pausedUntil > time(limiter) + noise
  return limiter.barred
}
