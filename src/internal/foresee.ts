/**
 * What somebody who asks, or is refused, is told of the time to come. Reads only.
 */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import type { Ask } from "./ask.ts"
import * as Line from "./line.ts"
import { type Ahead, foresee, type Meter } from "./part/meter.ts"
import * as Pool from "./pool.ts"
import {
  agreed,
  type Call,
  canStart,
  type Clockwork,
  fromNow,
  hasPermits,
  type Limiter,
  noise,
  stateOf,
  time
} from "./state.ts"

/** When a timing part alone could let a newcomer start behind all who wait; undefined beyond patience. */
const foreseen = (
  limiter: Limiter,
  ask: Ask,
  index: number,
  from: number,
  patience: number
): number | undefined => {
  const part = limiter.parts.timings[index]!
  const meter: Meter<unknown> = part.meter
  const ahead: Ahead = { calls: part.calls, total: part.total, costs: costs(limiter, index) }
  return from === Infinity
    ? Infinity
    : foresee(meter, asIfEnded(limiter, part, from), from, ask.timings[index]!, ahead, limiter.wall, patience)
}

/** Spacing from the end counts a call that runs as if it ended now: one interval for it. */
const asIfEnded = (limiter: Limiter, part: Clockwork, now: number): unknown =>
  part.chargedWhenFree !== undefined && Pool.isHeld(limiter.parts.gates[part.chargedWhenFree]!)
    ? part.meter.charge(stateOf(part), now, 1, limiter.wall)
    : stateOf(part)

function* costs(limiter: Limiter, index: number): Generator<number> {
  for (const call of Line.members(limiter.line)) {
    const amount = call.ask.timings[index]!
    if (amount > 0) yield amount
  }
}

/** Nanoseconds a newcomer would wait; undefined where no part can foresee it, or not as quickly as asked. */
export const expectedWait = (
  limiter: Limiter,
  ask: Ask,
  now: number,
  patience = Infinity
): number | undefined => {
  const from = fromNow(limiter, now)
  let expected = from > now ? from - now : undefined
  for (let i = 0; i < limiter.parts.timings.length; i++) {
    if (ask.timings[i] === 0) continue
    const at = foreseen(limiter, ask, i, from, patience)
    if (at === undefined) return undefined
    expected = Math.max(expected ?? 0, at - now)
  }
  return expected
}

/**
 * The calls in line that now expect to wait longer, since they came, than `maxWait` allows, and how long they would still
 * have to wait in nanoseconds. Each timing part alone is asked, as for a newcomer; a call that goes delays none behind it.
 *
 * A call that may start now is none of them, however long it has waited. Where permits are held nobody knows how much of
 * the wait so far was for permits, which `maxWait` does not bound: there only the wait still to come is compared.
 */
export const tooLong = (limiter: Limiter, now: number): ReadonlyArray<readonly [call: Call, wait: number]> => {
  const { maxWait } = limiter.plan
  if (maxWait === Infinity || limiter.line.size === 0) return []
  const from = fromNow(limiter, now)
  const found: Array<readonly [Call, number]> = []
  const holds = limiter.parts.gates.length > 0
  // A head that was due already, and whose timer is late, is charged when it was due.
  const due = Math.min(from, limiter.line.head!.due ?? from)
  const parts = limiter.parts.timings.map((part) => ({
    meter: part.meter,
    state: asIfEnded(limiter, part, from),
    at: from > now ? from : Math.max(due, now - part.meter.lateness)
  }))
  for (const call of Line.members(limiter.line)) {
    const { never, timings } = call.ask
    if (never !== undefined) continue
    const dues = parts.map(({ at, meter, state }, i) =>
      timings[i] === 0 || from === Infinity ? at : meter.readyAt(state, at, timings[i]!, limiter.wall)
    )
    const start = Math.max(from, ...dues.filter((_, i) => timings[i]! > 0))
    if (start > now + noise && start - (holds ? now : call.arrival) > maxWait + noise) {
      found.push([call, start - now])
      continue
    }
    parts.forEach((part, i) => {
      if (timings[i] === 0) return
      part.at = dues[i]!
      part.state = part.meter.charge(part.state, part.at, timings[i]!, limiter.wall)
    })
  }
  return found
}

/** Nobody goes through a longer line than this only to tell of it. */
const patienceToTell = 100

/**
 * Nanoseconds until a newcomer could start, were every permit free: all parts together and
 * the whole line played through. Parts alone would say too little, since a call waits behind
 * others for parts that it does not ask itself. 0 where that is not for time to say.
 */
export const untilAvailable = (limiter: Limiter, ask: Ask, now: number): number => {
  const { timings } = limiter.parts
  const alone = timings.length === 1 && ask.timings[0]! > 0
  // A long line takes long to play through, and a refusal should be quick.
  if (alone || limiter.line.size > 1_000) return expectedWait(limiter, ask, now) ?? 0
  let at = fromNow(limiter, now)
  let states = timings.map((part) => asIfEnded(limiter, part, at))
  for (const { ask } of Line.members(limiter.line)) {
    at = agreed(limiter, ask, at, states)
    states = timings.map(({ meter }, i) =>
      ask.timings[i]! > 0 ? meter.charge(states[i], at, ask.timings[i]!, limiter.wall) : states[i]
    )
  }
  return agreed(limiter, ask, at, states) - now
}

/** Whether nobody can know when it could start, since that is when somebody else's effect ends. */
const isForPermitsToSay = (limiter: Limiter, ask: Ask): boolean =>
  limiter.parts.gates.length > 0 && (limiter.line.size > 0 || !hasPermits(limiter, ask))

/** What the logs say of a wait: as exact as can be said without going through a long line. */
export const expectedToTell = (limiter: Limiter, ask: Ask, now: number): number | undefined => {
  if (limiter.parts.timings.length === 0 && isForPermitsToSay(limiter, ask)) return undefined
  const expected = limiter.line.size > patienceToTell
    ? expectedWait(limiter, ask, now, patienceToTell)
    : untilAvailable(limiter, ask, now)
  return expected === Infinity ? undefined : expected
}

/** The names of the parts a newcomer would have to wait for: its own, and those the head waits for. */
export const inTheWay = (limiter: Limiter, ask: Ask, now: number): ReadonlyArray<string> => {
  const head = limiter.line.head?.ask
  const timings = limiter.parts.timings.filter((part, i) =>
    (ask.timings[i]! > 0 && (foreseen(limiter, ask, i, now, patienceToTell) ?? Infinity) > now + noise) ||
    (head !== undefined && head.timings[i]! > 0 &&
      part.meter.readyAt(stateOf(part), now, head.timings[i]!, limiter.wall) > now + noise)
  )
  const gates = limiter.parts.gates.filter((gate, i) => Math.max(ask.holdings[i]!, head?.holdings[i] ?? 0) > gate.free)
  const pause = limiter.pausedUntil > now + noise ? ["pause"] : []
  return [...new Set([...timings, ...gates].map((part) => part.name)), ...pause]
}

/** How long somebody who is refused should wait; undefined where nobody can know. */
export const retryAfter = (
  limiter: Limiter,
  ask: Ask,
  now: number,
  known?: number
): Duration.Duration | undefined => {
  if (limiter.parts.timings.length === 0 && isForPermitsToSay(limiter, ask)) return undefined
  const wait = known ?? untilAvailable(limiter, ask, now)
  return wait <= noise || wait === Infinity ? undefined : Duration.millis(Math.ceil((wait - noise) / 1e6))
}

/** How long a newcomer would wait; none where nobody can know, and where it would be for ever. */
export const nextAvailable = (limiter: Limiter, ask: Ask): Option.Option<Duration.Duration> => {
  if (limiter.closed || ask.never !== undefined) return Option.none()
  const now = time(limiter)
  if (canStart(limiter, ask, now)) return Option.some(Duration.zero)
  if (isForPermitsToSay(limiter, ask)) return Option.none()
  const wait = untilAvailable(limiter, ask, now)
  return wait === Infinity ? Option.none() : Option.some(rounded(wait))
}

/** How long somebody has to wait who asks: rounded up to microseconds. */
const rounded = (nanos: number): Duration.Duration => Duration.millis(Math.max(0, Math.ceil(nanos / 1e3 - 0.1)) / 1e3)
