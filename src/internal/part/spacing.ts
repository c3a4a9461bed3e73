/**
 * The meter of the kind `Spacing`, and its declaration.
 */
import { type Kind, nanos } from "./kind.ts"
import { boundary, type Meter, type Wall } from "./meter.ts"
import * as Words from "./words.ts"

export interface SpacingRule {
  readonly kind: "spacing"
  readonly interval: number
  /** Whether starts lie on multiples of the interval of the wall clock. */
  readonly align: boolean
  /** Whether ends of calls are charged instead of starts. */
  readonly fromEnd: boolean
}

/** The last charged instant: a start, or an end. */
export interface SpacingState {
  readonly last: number
}

/** Identifies a start, which is refunded only if no other came after it. */
interface Ticket {
  readonly before: SpacingState
  readonly last: number
}

/**
 * Requires at least `interval` nanoseconds from one charge to the next, whatever the cost.
 *
 * Aligned, a start is ready on a multiple of `interval` of the wall clock. Timers wake late, so an aligned start that
 * is less than an interval late is charged at its slot; charged when it happened, each late start would lose a slot.
 */
export const spacing = ({ align, fromEnd, interval }: SpacingRule): Meter<SpacingState, Ticket> => {
  // The wall clock shows whole milliseconds, so two slots may seem this much too close. (An end is not a slot.)
  const jitter = fromEnd ? 0 : Math.min(2e6, interval / 2)
  const readyAt = (state: SpacingState, from: number, wall: Wall) =>
    align
      ? boundary(Math.max(from, state.last + interval - jitter), interval, wall)
      : Math.max(from, state.last + interval)
  return {
    initial: { last: -Infinity },
    capacity: Infinity,
    lateness: align ? interval : 0,
    readyAt: (state, from, _cost, wall) => readyAt(state, from, wall),
    charge: (_state, at) => ({ last: at }),
    tryCharge: (state, now, _cost, wall) => readyAt(state, now, wall) > now ? undefined : { last: now },
    open: (state, before) => ({ state, ticket: { before, last: state.last } }),
    close: (state) => state,
    refund: (state, { before, last }) => state.last === last ? before : state,
    adopt: (state) => state,
    interval,
    remaining: (state, now, wall) => readyAt(state, now, wall) > now ? 0 : 1,
    isInitial: (state, now) => state.last + interval <= now,
    isUnspent: (state, now) => state.last + interval <= now,
    readyBehind: (state, from, _cost, waiting, wall) => readyAt(state, from, wall) + waiting.calls * interval
  }
}

/** The kind `Spacing`: at least `interval` from one start to the next, or from an end to the next start. */
export const spacingPolicy: Kind<{
  readonly interval: number
  readonly align: boolean
  readonly from: "start" | "end"
  readonly onReentry?: "die" | "bypass"
}, SpacingRule> = {
  words: ({ align, from, interval }) => {
    const gap = from === "start"
      ? `${Words.duration(interval, "1 ")} between starts`
      : `${Words.duration(interval, "1 ")} from an end to the next start`
    return align ? `${gap}, on the clock` : gap
  },
  parts: ({ align, from, interval, onReentry = "die" }) => {
    const fromEnd = from === "end"
    return {
      meter: {
        rule: { kind: "spacing", interval: nanos(interval), align, fromEnd },
        pace: { permits: 1, per: nanos(interval) },
        perCall: true,
        chargedOnRelease: fromEnd
      },
      // One call runs at a time, since the next one starts after its end.
      ...(fromEnd ? { pool: { limit: 1, perCall: true, onReentry } } : undefined)
    }
  }
}
