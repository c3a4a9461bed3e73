/**
 * What a client has learned of a server's limit, and what it does about it: when the next request may start, and what an
 * answer means. Pure functions of a state and an event; times are integer nanoseconds on the monotonic clock.
 *
 * Refusals teach the rate (`rate.ts`), fields what is left (`quota.ts`); a request starts when both allow it. Freshness is
 * decided by the order of starts, never by time.
 */
import * as Quota from "./quota.ts"
import * as Rate from "./rate.ts"

export interface Learner {
  readonly rate: Rate.Rate
  readonly quota: Quota.Quota
  /** How many have started. */
  readonly started: number
  /** How many are on their way to the server or back. */
  readonly inFlight: number
  /** The most that ever were at once. */
  readonly mostInFlight: number
  /** Whether a refused probe has cost no attempt since the last request that was accepted. */
  readonly isSpared: boolean
}

/** What a request remembers from its start to its end. */
export interface Sent {
  /** Its number, by start. */
  readonly order: number
  /** Whether others waited when it started. */
  readonly isBound: boolean
  readonly mark: Quota.Mark
}

export const make = (now: number): Learner => ({
  rate: Rate.make(now),
  quota: Quota.unknown,
  started: 0,
  inFlight: 0,
  mostInFlight: 0,
  isSpared: false
})

/** Whether nothing that was learned can hold a request back. */
export const isFree = ({ quota, rate }: Learner): boolean =>
  rate.rate === Infinity && rate.atOnce === Infinity && quota.left === Infinity

/**
 * The earliest instant at which a request may start behind so many that are about to; Infinity while an answer has to come
 * first. Pauses are not its matter.
 */
export const readyAt = (learner: Learner, now: number, ahead: number): number => {
  const { inFlight, quota, rate } = learner
  // One after the other, each when the one before it has started, so that none is charged that may not start.
  if (ahead > 0 && (rate.rate < Infinity || rate.atOnce < Infinity)) return Infinity
  return Math.max(Rate.readyAt(rate, now, inFlight), Quota.readyAt(quota, now, inFlight, ahead))
}

/** Nanoseconds until a request may start behind so many; undefined where nothing can be foreseen. */
export const expectedWait = ({ quota, rate }: Learner, now: number, before: number): number | undefined => {
  const at = Math.max(Rate.expectedAt(rate, now, before), Quota.expectedAt(quota, now, before))
  return at < Infinity ? at - now : undefined
}

/** A request starts. `isBound`: whether others wait behind it. */
export const start = (learner: Learner, now: number, isBound: boolean): readonly [Learner, Sent] => {
  const order = learner.started + 1
  const quota = Quota.start(learner.quota, now, order, learner.inFlight)
  const inFlight = learner.inFlight + 1
  return [
    {
      ...learner,
      rate: Rate.start(learner.rate, now, learner.inFlight),
      quota,
      started: order,
      inFlight,
      mostInFlight: Math.max(learner.mostInFlight, inFlight)
    },
    { order, isBound, mark: Quota.markOf(quota) }
  ]
}

/** A request has ended without a word on limits: it failed, was interrupted, or a cache gave its answer. */
export const end = (learner: Learner, sent: Sent): Learner => ({
  ...learner,
  inFlight: learner.inFlight - 1,
  quota: Quota.lost(learner.quota, sent.order)
})

const read = (learner: Learner, now: number, { mark, order }: Sent, fields: Quota.Fields | undefined): Quota.Quota =>
  fields === undefined
    ? learner.quota
    : Quota.read(
      learner.quota,
      now,
      { order, mark, since: learner.started - order, others: learner.inFlight - 1 },
      fields
    )

/** A request was accepted. `most`: how many the policy allows at once; undefined where that is not known. */
export const accept = (
  learner: Learner,
  now: number,
  sent: Sent,
  fields: Quota.Fields | undefined,
  most: number | undefined
): Learner => {
  const { mark, order } = sent
  const quota = fields !== undefined
    ? Quota.accepted(learner.quota, now, order, fields.remaining)
    : learner.quota.left === Infinity
    ? learner.quota
    : Quota.uncounted(learner.quota, order, mark)
  return {
    ...learner,
    rate: Rate.accepted(learner.rate, now, sent.isBound, most ?? learner.mostInFlight),
    quota: read({ ...learner, quota }, now, sent, fields),
    inFlight: learner.inFlight - 1,
    isSpared: false
  }
}

/** What a refusal means for the request, and for all. */
export interface Refusal {
  readonly learner: Learner
  /** Whether it costs the request an attempt; if not, it keeps its place. */
  readonly isCharged: boolean
  /** The nanoseconds for which nothing should be sent; 0 for none. */
  readonly pause: number
  /** Whether the request itself waits as its schedule says. */
  readonly waitsAlone: boolean
}

/**
 * A request was refused. `named` is the time that the answer names, in nanoseconds; `stretch` adds the jitter to a pause and
 * cuts what is too long.
 */
export const refuse = (
  learner: Learner,
  now: number,
  sent: Sent,
  named: number | undefined,
  fields: Quota.Fields | undefined,
  stretch: (nanos: number) => number
): Refusal => {
  const wasProbe = learner.quota.probing === sent.order
  const quota = Quota.refused(read(learner, now, sent, fields), now, sent.order, named)
  const after = { ...learner, quota, inFlight: learner.inFlight - 1 }
  const pauseOf = (wait: number) => {
    const pause = wait > 0 ? Math.ceil(stretch(wait)) : 0
    return { pause, until: pause > 0 ? now + pause : 0 }
  }
  const uncharged = (isSpared: boolean): Refusal => {
    const { pause, until } = pauseOf(named ?? 0)
    const rate = Rate.pause(learner.rate, until)
    return { learner: { ...after, rate, isSpared }, isCharged: false, pause, waitsAlone: false }
  }
  // A refused probe shows that the limit is a window, with nothing left until its end. With an unknown end it is a refusal, and
  // so is a second one in succession: a server that never states the same limit twice would be probed for ever.
  const showsWindow = wasProbe && (named !== undefined || (quota.ends > now && quota.ends < Infinity))
  if (showsWindow && !learner.isSpared) return uncharged(true)
  if (sent.order <= learner.rate.upTo) return uncharged(learner.isSpared)
  const bucket = quota.kind === "bucket" ? quota.pace : 0
  const { isShut, rate, wait, waitsAlone } = Rate.refused(learner.rate, now, { bucket, named, order: learner.started })
  const { pause, until } = pauseOf(wait)
  return { learner: { ...after, rate: Rate.pauseAfter(rate, now, until, isShut) }, isCharged: true, pause, waitsAlone }
}

// ---------------------------------------------------------------------------------------------------------------------
// What was learned, for logs and statistics
// ---------------------------------------------------------------------------------------------------------------------

const second = 1e9

/** The rate that requests are held to, a second; Infinity while none is known. */
export const ratePerSecond = ({ quota, rate }: Learner): number =>
  second * (quota.kind === "bucket" && quota.pace > 0 ? Math.min(rate.rate, quota.pace) : rate.rate)

/** Why requests are held back, in words. */
export const describe = (learner: Learner): string => {
  const rate = ratePerSecond(learner)
  if (rate < Infinity) return `learned: ${rounded(rate)} per second`
  if (learner.rate.atOnce < Infinity) return `learned: ${learner.rate.atOnce} at once`
  return `learned: ${rounded(learner.quota.size)} in a window`
}

const rounded = (number: number): number => Number(number.toPrecision(3))

/** The rate that an event has taught, and whether refusals or fields did; undefined where it taught none. */
export const lesson = (
  before: Learner,
  after: Learner
): { readonly rate: number; readonly why: "refusals" | "fields" } | undefined => {
  if (after.rate.top !== before.rate.top) {
    const isTold = before.rate.rate === Infinity && after.quota.kind === "bucket" && after.rate.top === after.quota.pace
    return { rate: rounded(after.rate.top * second), why: isTold ? "fields" : "refusals" }
  }
  const { kind, pace } = after.quota
  return kind !== "unknown" && kind !== before.quota.kind && pace > 0
    ? { rate: rounded(pace * second), why: "fields" }
    : undefined
}

/** The window that the server states, in nanoseconds; 0 where it states none. */
export const windowOf = ({ quota: { pace, size } }: Learner): number => pace > 0 ? size / pace : 0
