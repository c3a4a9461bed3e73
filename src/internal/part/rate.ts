/**
 * The meter of the kinds `Rate` and `TokenBucket`, and their declarations.
 */
import { type Kind, nanos } from "./kind.ts"
import * as Layers from "./layers.ts"
import { latenessTolerance, type Meter } from "./meter.ts"
import * as Words from "./words.ts"

export interface RateRule {
  readonly kind: "rate"
  /** Nanoseconds between two permits. */
  readonly interval: number
  /** Permits that may start at once. */
  readonly capacity: number
  /** Permits that may start at once when the limiter is made; absent: `capacity`. */
  readonly initial?: number
}

/**
 * The contents of the bucket at an instant. The level is a time: the nanoseconds until the bucket is empty. (A full
 * bucket, in this leaky-bucket form, allows no start.)
 */
export interface RateState {
  readonly level: number
  readonly at: number
  /** Present while charges may be refunded. */
  readonly open?: Open
}

/**
 * What refunds need: which contents were there before a charge, and which were added after it.
 *
 * The bucket drains from its top layer. Had only the charges after some charge been made, the bucket would now contain
 * the sum of the layers above that charge. So a refund removes from the layer of its charge and from those below it,
 * and is limited by what is left in them: the rest would have drained anyway.
 *
 * Invariant: the layers add up to the level plus what was lost. Each open charge has a layer, whose key is its ticket.
 * What is poured after the last of them is in the layer of the next ticket.
 */
interface Open {
  /** The ticket of the next charge to be opened. */
  readonly next: number
  /** The number of open charges. */
  readonly count: number
  readonly layers: Layers.Layers | undefined
  readonly lost: ReadonlyArray<Lost>
}

/**
 * Contents above the capacity when an update made the bucket smaller. They stay in the layers, at the bottom, where
 * they never drain. A refund of a charge with a ticket up to `upTo` returns them first.
 */
interface Lost {
  readonly amount: number
  readonly upTo: number
  /** What was owed beyond the larger bucket. None of it was lost: a refund returns it first, as far as it has not drained. */
  readonly owed: number
}

const lostOf = ({ lost }: Open): number => lost.reduce((sum, { amount }) => sum + amount, 0)

/** Those that no refund can tell apart, since the same open charges came before them, as one. */
const merged = (all: ReadonlyArray<Lost>, layers: Layers.Layers | undefined): ReadonlyArray<Lost> => {
  const byTicket = new Map<number, Lost>()
  for (const { amount, owed, upTo } of all) {
    const ticket = Layers.keyUpTo(layers, upTo)
    const same = byTicket.get(ticket)
    byTicket.set(ticket, { amount: amount + (same?.amount ?? 0), upTo: ticket, owed: owed + (same?.owed ?? 0) })
  }
  return Array.from(byTicket.values())
}

/**
 * Returns the layers after an amount has drained. It is negative if a start is charged slightly before the latest
 * charge.
 */
const drained = ({ layers, next }: Open, amount: number): Layers.Layers | undefined =>
  amount < 0 ? Layers.pour(layers, next, -amount) : Layers.drain(layers, amount)

/** Returns the lost contents that a refund of this charge cannot return, since they were lost before the charge. */
const lostBefore = ({ lost }: Open, ticket: number): number =>
  lost.reduce((sum, { amount, upTo }) => upTo < ticket ? sum + amount : sum, 0)

/**
 * The generic cell rate algorithm (ITU-T I.371) as a continuous-state leaky bucket: each permit pours `interval` into
 * the bucket, which drains by one nanosecond each nanosecond and holds `capacity` permits.
 *
 * The state is the level instead of the theoretical arrival time, because the level stays small and thus exact: after a
 * year of uptime a number of nanoseconds has a resolution of 4 ns, and adding an interval of 333.3 ns repeatedly would
 * drift.
 */
export const rate = ({ capacity, initial, interval }: RateRule): Meter<RateState, number> => {
  const level = (state: RateState, at: number) => {
    const left = state.level - (at - state.at)
    return left < -grain ? 0 : left
  }
  const readyAt = (state: RateState, from: number, cost: number) =>
    from + Math.max(0, level(state, from) - (capacity - cost) * interval)
  const poured = (state: RateState, before: number, cost: number, at: number): RateState =>
    state.open === undefined
      ? { level: before + cost * interval, at }
      : { level: before + cost * interval, at, open: pouredOpen(state.open, state.level - before, cost * interval) }
  const pouredOpen = (open: Open, gone: number, amount: number): Open => ({
    ...open,
    layers: Layers.pour(drained(open, gone), open.next, amount)
  })
  return {
    initial: { level: 0, at: -Infinity },
    ...(initial === undefined ? undefined : { startingAt: (at) => ({ level: (capacity - initial) * interval, at }) }),
    capacity,
    lateness: latenessTolerance,
    interval,
    readyAt,
    charge: (state, at, cost) => poured(state, level(state, at), cost, at),
    tryCharge: (state, now, cost) => {
      const before = level(state, now)
      return before > (capacity - cost) * interval ? undefined : poured(state, before, cost, now)
    },
    open: (state) => {
      const { count, layers, lost, next } = state.open ??
        { next: 1, count: 0, layers: Layers.pour(undefined, 1, state.level), lost: [] }
      const { at, level } = state
      return { state: { level, at, open: { next: next + 1, count: count + 1, layers, lost } }, ticket: next }
    },
    close: (state, ticket) => {
      const { at, level, open } = state
      // A state from before the charge does not contain it.
      if (open !== undefined && ticket >= open.next) return state
      if (open === undefined || open.count === 1) return { level, at }
      const { count, layers, lost, next } = open
      return { level, at, open: { next, count: count - 1, layers: Layers.lift(layers, ticket, next), lost } }
    },
    // As of the latest charge, not of now: what would have drained since then does so all the same. And a bucket that has
    // been empty since stays so: a late call that is charged before now would pay for one that is empty only now.
    refund: (state, ticket, _now, cost) => {
      const { at, open } = state
      if (open === undefined) return { level: Math.max(0, state.level - cost * interval), at }
      const taken = Math.min(cost * interval, Layers.sumTo(open.layers, ticket) - lostBefore(open, ticket))
      if (taken <= 0) return state
      const all = lostOf(open)
      let back = taken
      const lost = open.lost.flatMap((one) => {
        if (one.upTo < ticket) return [one]
        const owed = one.owed === 0
          ? 0
          : Math.min(one.owed, back, Math.max(0, Layers.sumTo(open.layers, one.upTo) - all))
        const less = Math.min(one.amount, back - owed)
        back -= less
        return one.amount > less ? [{ ...one, amount: one.amount - less, owed: one.owed - owed }] : []
      })
      return {
        level: state.level - back,
        at,
        open: { ...open, layers: Layers.drainFrom(open.layers, ticket, taken), lost }
      }
    },
    adopt: (state, from, now) => {
      // Admitted permits count as at most the new capacity; what was settled above the former capacity stays owed. (A
      // store charges reservations that are still to come: they stay to come.)
      const since = Math.max(now, state.at)
      const before = level(state, since)
      const spent = before / from.interval
      const above = Math.max(0, Math.min(spent, from.capacity) - capacity) * interval
      // One that is empty has been so since it ran empty, for a late call that is charged before now.
      const at = before > 0 ? since : Math.min(since, state.at + state.level)
      const scaled = { level: spent * interval - above, at }
      if (state.open === undefined) return scaled
      const { count, lost, next } = state.open
      const factor = interval / from.interval
      const layers = Layers.scale(drained(state.open, state.level - before), factor)
      const owed = Math.max(0, spent - from.capacity) * interval
      return {
        ...scaled,
        open: {
          next,
          count,
          layers,
          lost: merged([
            ...lost.map((one) => ({ amount: one.amount * factor, upTo: one.upTo, owed: one.owed * factor })),
            ...(above > 0 ? [{ amount: above, upTo: next - 1, owed }] : [])
          ], layers)
        }
      }
    },
    remaining: (state, now) => Math.max(0, Math.min(capacity, Math.floor(capacity - level(state, now) / interval))),
    isInitial: (state, now) => level(state, now) <= 0,
    isUnspent: (state, now) => level(state, now) <= 0,
    // The calls ahead start as soon as they may, so the bucket is never empty in between, and their sum is enough.
    readyBehind: (state, from, cost, waiting) => readyAt(state, from, waiting.total + cost)
  }
}

/**
 * The rounding error of an instant in nanoseconds, up to two years of uptime. A bucket that is below empty by no more
 * than this is kept so: if it were set to 0, each start would lose the time by which it was rounded up, 0.2 % at
 * 3,000,000 per second.
 */
const grain = 8

/** The kind `Rate`: one start every `per / limit`, and up to `burst` more on credit. */
export const ratePolicy: Kind<{
  readonly limit: number
  readonly per: number
  readonly burst: number
  readonly unit?: string
}, RateRule> = {
  words: (data) =>
    `${data.limit}${Words.unit(data)} per ${Words.duration(data.per, "")}${
      data.burst > 0 ? `, burst ${data.burst}` : ""
    }`,
  parts: ({ burst, limit, per }) => ({
    meter: {
      rule: { kind: "rate", interval: nanos(per) / limit, capacity: burst + 1 },
      pace: { permits: limit, per: nanos(per) }
    }
  })
}

/** The kind `TokenBucket`: a bucket of `capacity` permits, refilled by `refill` every `per`. */
export const tokenBucketPolicy: Kind<{
  readonly capacity: number
  readonly refill: number
  readonly per: number
  readonly initial?: number
  readonly unit?: string
}, RateRule> = {
  words: (data) =>
    `${data.refill}${Words.unit(data)} per ${Words.duration(data.per, "")}, bucket of ${data.capacity}${
      data.initial === undefined ? "" : `, initially ${data.initial}`
    }`,
  parts: ({ capacity, initial, per, refill }) => ({
    meter: {
      rule: {
        kind: "rate",
        interval: nanos(per) / refill,
        capacity,
        ...(initial === undefined ? undefined : { initial })
      },
      pace: { permits: refill, per: nanos(per) }
    }
  })
}
