import * as Layers from "./layers.ts"
import type { Meter } from "./meter.ts"

/** How full the bucket was at an instant. The level is time, not permits: the nanoseconds until it is empty. */
export interface RateState {
  readonly level: number
  readonly at: number
  /** Only while charges may be refunded. */
  readonly open?: Open
}

/**
 * What refunds need: which part of the contents was there before a charge, and which came after it.
 *
 * A bucket drains from the top of its layers: how full it would be had only the charges after some charge been made is
 * the sum of the layers above that one. So a refund takes from the layer of its charge and from those below it, and is
 * limited by what is left of these: the rest would have drained anyway.
 *
 * Invariant: the layers add up to the level and what was lost. Each open charge has a layer, under its ticket; what is
 * poured after the last of them goes to the layer of the next ticket.
 */
interface Open {
  /** The ticket of the next charge that is opened. */
  readonly next: number
  /** How many charges are open. */
  readonly count: number
  readonly layers: Layers.Layers | undefined
  readonly lost: ReadonlyArray<Lost>
}

/**
 * What did not fit any more when the bucket was made smaller. It is still in the layers, at the bottom, where it never
 * drains, and it is the first that a refund of a charge up to `upTo` returns.
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

/** The layers when so much has drained; less than 0 where a start is charged a little before the latest charge. */
const drained = ({ layers, next }: Open, amount: number): Layers.Layers | undefined =>
  amount < 0 ? Layers.pour(layers, next, -amount) : Layers.drain(layers, amount)

/** What a refund of a charge cannot reach, since it was lost before the charge. */
const lostBefore = ({ lost }: Open, ticket: number): number =>
  lost.reduce((sum, { amount, upTo }) => upTo < ticket ? sum + amount : sum, 0)

/**
 * The generic cell rate algorithm (ITU-T I.371) in its form as a continuous-state
 * leaky bucket: a permit pours `interval` into the bucket, the bucket drains by a
 * nanosecond each nanosecond and holds `capacity` permits.
 *
 * The level is kept rather than the theoretical arrival time because it stays small
 * and so exact: after a year of uptime a number of nanoseconds has a grain of 4 ns,
 * and adding an interval of 333.3 ns to such a number over and over would drift.
 */
export const rate = (options: {
  /** Nanoseconds between two permits. */
  readonly interval: number
  /** Permits that may start at once. */
  readonly capacity: number
  readonly lateness: number
}): Meter<RateState, number> => {
  const { capacity, lateness, interval } = options
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
    capacity,
    lateness,
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
      // A state that was taken back to before the charge does not know the ticket.
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
      // What was let in counts for at most what could be now; what was settled for more than there was stays owed. (A
      // store charges a slot that is still to come: it stays to come.)
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
    // Those ahead start as soon as they may, so the bucket never runs empty in between: their sum is enough.
    readyBehind: (state, from, cost, ahead) => readyAt(state, from, ahead.total + cost)
  }
}

/**
 * An instant in nanoseconds is rounded by up to this much, for two years of uptime. A bucket that seems this much emptier
 * than empty is kept so: cut off at 0, what each start loses by rounding up is lost for good; at 3,000,000 a second that
 * was 0.2 %.
 */
const grain = 8
