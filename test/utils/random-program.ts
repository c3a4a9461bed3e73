/**
 * Random programs of calls: equal seeds give equal programs, on every machine.
 */
import type { Throttle } from "effect-throttle"

/** A part of a policy as data, durations in milliseconds. */
export type Part =
  & { readonly unit?: string }
  & (
    | { readonly _tag: "Rate"; readonly limit: number; readonly per: number; readonly burst: number }
    | { readonly _tag: "TokenBucket"; readonly capacity: number; readonly refill: number; readonly per: number }
    | {
      readonly _tag: "Window"
      readonly limit: number
      readonly per: number
      readonly kind: "sliding" | "fixed"
    }
    | {
      readonly _tag: "Spacing"
      readonly interval: number
      readonly align: boolean
      readonly from: "start" | "end"
    }
    | { readonly _tag: "Concurrency"; readonly limit: number }
  )

export interface RandomCall {
  /** When it arrives, in milliseconds. */
  readonly at: number
  readonly runs: number
  readonly cost: Throttle.Cost
  readonly use: "withPermits" | "takeScoped" | "ifAvailable" | "uninterruptible" | "failing"
  /** The scheduler step before which it is interrupted, if it has arrived by then. */
  readonly interruptStep: number | undefined
  /** The instant at which it is interrupted; no sooner than it arrives. */
  readonly interruptAt: number | undefined
}

/** A change of the whole throttle. Then its starts follow no single policy any more. */
export interface Turn {
  readonly at: number
  readonly what: "pause" | "resume" | "update" | "settle" | "reset"
  /** How long the pause is. */
  readonly millis: number
  /** The parts of the new policy. */
  readonly parts: ReadonlyArray<Part>
}

export interface Program {
  readonly seed: number
  readonly parts: ReadonlyArray<Part>
  readonly bounds: { readonly timeout?: number; readonly maxQueue?: number }
  /** In the order in which they arrive. */
  readonly calls: ReadonlyArray<RandomCall>
  /** When the throttle's scope closes, if it does so before all is over. */
  readonly closeAt: number | undefined
  readonly turns: ReadonlyArray<Turn>
  /** Operations before a fiber yields. */
  readonly operations: number
  /** Timers wake up to so many milliseconds late. */
  readonly late: number
}

/** Whole steps, several operations each: then the order of the starts is the order of the queue. */
export const coarse = 2_048

/** Numbers from 0 to 1 (Mulberry32). */
export const randomNumbers = (seed: number) => (): number => {
  seed = (seed + 0x6d2b79f5) | 0
  let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
}

export const randomProgram = (seed: number): Program => {
  const random = randomNumbers(seed)
  const chance = (probability: number) => random() < probability
  const int = (from: number, to: number) => from + Math.floor(random() * (to - from + 1))
  const pick = <A>(...choices: ReadonlyArray<A>): A => choices[int(0, choices.length - 1)]!
  // Most programs keep to whole milliseconds, so that much happens at the same instant.
  const fractional = chance(0.3)
  const millis = (from: number, to: number) => fractional ? from + random() * (to - from) : int(from, to)

  const rule = (): Part => {
    switch (int(0, 6)) {
      case 0:
        return { _tag: "Rate", limit: int(1, 7), per: millis(5, 40), burst: int(0, 4) }
      case 1:
        return { _tag: "TokenBucket", capacity: int(1, 6), refill: int(1, 7), per: millis(5, 40) }
      case 2:
        return { _tag: "Window", limit: int(1, 5), per: millis(5, 40), kind: pick("sliding", "fixed") }
      case 3:
        return { _tag: "Spacing", interval: millis(1, 20), align: false, from: "start" }
      // Slots of several aligned parts must coincide now and then: whole milliseconds.
      case 4:
        return { _tag: "Spacing", interval: int(1, 20), align: true, from: "start" }
      case 5:
        return chance(0.3)
          ? { _tag: "Spacing", interval: int(1, 20), align: true, from: "end" }
          : { _tag: "Spacing", interval: millis(1, 20), align: false, from: "end" }
      default:
        return { _tag: "Concurrency", limit: int(1, 4) }
    }
  }
  const some = () =>
    Array.from({ length: int(1, 3) }, (): Part => ({ ...rule(), ...(chance(0.35) && { unit: "slots" }) }))
  const parts = some()
  const countsSlots = parts.some(({ unit }) => unit !== undefined)
  const countsPermits = parts.some(({ unit }) => unit === undefined)

  // A cost in a unit that no part counts would only die.
  const cost = (): Throttle.Cost => {
    const permits = int(0, 3)
    const slots = int(0, 3)
    if (!countsPermits) return { slots }
    if (!countsSlots) return pick<Throttle.Cost>(permits, { permits })
    return pick<Throttle.Cost>({ permits, slots }, { slots }, permits)
  }

  const bounds = {
    ...(chance(0.35) && { timeout: millis(3, 40) }),
    ...(chance(0.15) && { maxQueue: int(0, 4) })
  }
  const operations = pick(3, 3, 4, 5, coarse)
  const late = chance(0.25) ? pick(1, 4, 15) : 0
  const count = int(2, 10)
  const calls = Array.from({ length: count }, (): RandomCall => ({
    at: millis(0, 40),
    runs: chance(0.3) ? 0 : millis(0, 15),
    cost: cost(),
    use: pick("withPermits", "withPermits", "withPermits", "takeScoped", "ifAvailable", "uninterruptible", "failing"),
    interruptStep: operations !== coarse && chance(0.35) ? int(0, count * 60) : undefined,
    interruptAt: chance(0.2) ? millis(0, 60) : undefined
  })).toSorted((a, b) => a.at - b.at)
  const closeAt = chance(0.05) ? millis(0, 60) : undefined
  const turns = chance(0.3)
    ? Array.from({ length: int(1, 5) }, (): Turn => ({
      at: millis(0, 50),
      what: pick("pause", "resume", "update", "update", "settle", "reset"),
      millis: millis(0, 15),
      // Now and then the same parts with other numbers, so that they are carried over.
      parts: chance(0.5) ? some() : parts.map((part) => ("limit" in part ? { ...part, limit: int(1, 5) } : part))
    }))
    : []
  return { seed, parts, bounds, calls, closeAt, turns, operations, late }
}
