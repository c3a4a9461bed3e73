/**
 * The rate that a server allows, by its refusals. Pure functions, which import nothing. Times are integer nanoseconds on the
 * monotonic clock, rates are requests per nanosecond.
 *
 * At a refusal the server's rate is estimated from what it accepted since the last one, and nine tenths of that are sent,
 * evenly. From there the rate returns to the estimate along a cubic curve, steep at first and flat near the estimate, and
 * goes on beyond it until the server refuses again. Of requests that were on their way at a refusal, no further refusal says
 * anything new ("stale").
 */

export interface Rate {
  /** Requests per nanosecond that may start; Infinity while no limit is known. */
  readonly rate: number
  /** The estimate of the server's rate; 0 while there is none. */
  readonly top: number
  /** How long the rate takes from nine tenths of the estimate back to it. */
  readonly climb: number
  /** How far it has come in that, counting only time in which requests waited. */
  readonly age: number
  /** The part of a start that has accrued at `creditAt`, 1 at most. */
  readonly credit: number
  readonly creditAt: number
  /** How many may be on their way at once. */
  readonly atOnce: number
  /** When a request started last, or was refused, since their number is limited. */
  readonly startedAt: number
  /** Until when nothing should be sent. */
  readonly pausedUntil: number
  /** Refusals in succession. */
  readonly fails: number
  /** Requests that started no later than this one are stale. */
  readonly upTo: number
  /** Whether there was a refusal before. */
  readonly isWarned: boolean
  /** When the present span of counting began, how many were accepted in it, and how long of it was a pause. */
  readonly since: number
  readonly accepted: number
  readonly paused: number
}

export const make = (now: number): Rate => ({
  rate: Infinity,
  top: 0,
  climb: 0,
  age: 0,
  credit: 1,
  creditAt: now,
  atOnce: Infinity,
  startedAt: now,
  pausedUntil: 0,
  fails: 0,
  upTo: 0,
  isWarned: false,
  since: now,
  accepted: 0,
  paused: 0
})

const second = 1e9

/** The longest pause after refusals that name no time. Nor is a rate estimated that has a request wait for longer. */
const longest = 8 * second

/** A server that has accepted nothing for so long is shut: how long it was says nothing of its rate. */
const shut = 60 * second

/** Less than this beside 1 is the noise of a fraction. */
const grain = 1e-6

const creditAt = ({ credit, creditAt, rate }: Rate, now: number): number =>
  rate === Infinity ? 1 : Math.min(1, credit + (now - creditAt) * rate)

/** The earliest instant at which a request may start. */
export const readyAt = (rate: Rate, now: number, inFlight: number): number => {
  const credit = creditAt(rate, now)
  const at = credit >= 1 - grain ? now : now + Math.ceil((1 - credit) / rate.rate)
  return inFlight < rate.atOnce ? at : Math.max(at, overdueAt(rate))
}

/**
 * When a request starts though as many as may be are on their way, for these may take minutes to be answered. Later with each
 * refusal, since the server may refuse because of them.
 */
const overdueAt = ({ fails, startedAt }: Rate): number => startedAt + longest * 2 ** Math.min(6, Math.max(0, fails - 1))

/** When a request may start behind so many, as far as the rate says. */
export const expectedAt = (rate: Rate, now: number, before: number): number =>
  rate.rate === Infinity ? now : readyAt(rate, now, -Infinity) + Math.ceil(before / rate.rate)

/** A request starts. `inFlight`: how many others are on their way; where they are too many, these are overdue. */
export const start = (rate: Rate, now: number, inFlight: number): Rate => {
  const { atOnce } = rate
  const counted = rate.rate === Infinity ? rate : { ...rate, credit: creditAt(rate, now) - 1, creditAt: now }
  return atOnce === Infinity ? counted : { ...counted, startedAt: now, atOnce: Math.max(atOnce, inFlight + 1) }
}

/** A request was accepted. `isBound`: others waited when it started. `most`: how many the policy allows at once. */
export const accepted = (rate: Rate, now: number, isBound: boolean, most: number): Rate => {
  const atOnce = rate.rate < Infinity || rate.atOnce + 1 >= most ? Infinity : rate.atOnce + 1
  const counted = { ...rate, accepted: rate.accepted + 1, fails: 0, atOnce }
  if (rate.rate === Infinity || !isBound) return counted
  const age = rate.age + 1 / rate.rate
  const credit = creditAt(rate, now)
  return { ...counted, age, rate: rate.top * (1 - 0.1 * (1 - age / rate.climb) ** 3), credit, creditAt: now }
}

/** What a refusal means. */
export interface Refused {
  readonly rate: Rate
  /** For how long nothing should be sent, without jitter; 0 for no pause. */
  readonly wait: number
  /** Whether the refused request waits longer than others, since no time is known. */
  readonly waitsAlone: boolean
  /** Whether the server has accepted nothing for long. */
  readonly isShut: boolean
}

/**
 * A refusal that is not stale. `named` is the time that the answer names, in nanoseconds; `bucket` the rate of a bucket whose
 * fields have stated it, or 0; `order` that of the latest request that started.
 */
export const refused = (
  before: Rate,
  now: number,
  { bucket, named, order }: { readonly bucket: number; readonly named: number | undefined; readonly order: number }
): Refused => {
  const fails = before.fails + 1
  const learned = estimate(before, now, bucket)
  const slowed: Rate = learned.top > 0
    ? { ...learned, rate: 0.9 * learned.top, age: 0, credit: Math.min(creditAt(before, now), 0), creditAt: now }
    : learned
  const isUnknown = slowed.rate === Infinity
  const isRepeated = fails > 1
  const backoff = !isUnknown && !isRepeated
    ? 1 / slowed.rate
    : Math.min(longest, 0.1 * second * 2 ** (fails - (isUnknown ? 1 : 2)))
  const wait = Math.max(named ?? 0, named === undefined || isRepeated ? backoff : 0)
  const isNew = before.accepted > 0 || !before.isWarned
  return {
    rate: {
      ...slowed,
      fails,
      atOnce: isUnknown || isRepeated ? 1 : slowed.atOnce,
      startedAt: now,
      upTo: order,
      isWarned: true,
      ...(isNew ? { since: now, paused: 0 } : undefined),
      accepted: 0
    },
    wait,
    isShut: !isNew && now - before.since >= shut,
    waitsAlone: named === undefined && (isUnknown || isRepeated)
  }
}

/** Of an estimate nine tenths are sent. */
const slowest = 1 / (0.9 * longest)

/** The estimate of the server's rate after a refusal; as before where nothing was accepted, for then it is shut, not slower. */
const estimate = (rate: Rate, now: number, bucket: number): Rate => {
  if (rate.rate === Infinity && bucket > 0) return { ...rate, top: bucket, climb: 3 / bucket }
  const all = now - rate.since
  if (!rate.isWarned || rate.accepted === 0 || all <= 0) return rate
  const mean = rate.accepted / all
  const top = rate.rate === Infinity
    // Between the rate with the pauses and the rate without them.
    ? Math.max(slowest, Math.sqrt(mean * rate.accepted / Math.max(all - rate.paused, all / 100)))
    : Math.max(
      Math.min(rate.top, slowest),
      Math.min(rate.rate, Math.max(0.7 * rate.rate, Math.sqrt(mean * rate.rate)))
    )
  const longestClimb = Math.max(5 * second, 12 / top)
  const climb = Math.min(longestClimb, Math.max(3 / top, rate.climb === 0 ? all : Math.max(rate.climb, all)))
  return { ...rate, top, climb }
}

/** Nothing is sent until then. */
export const pause = (rate: Rate, until: number): Rate => ({
  ...rate,
  pausedUntil: Math.max(rate.pausedUntil, until)
})

/** The same after a refusal that is not stale: it counts as time in which nothing could be accepted, or as no time at all. */
export const pauseAfter = (rate: Rate, now: number, until: number, isShut: boolean): Rate => {
  const paused = pause(rate, until)
  const nanos = Math.max(0, paused.pausedUntil - now)
  return isShut ? { ...paused, since: now + nanos, paused: 0 } : { ...paused, paused: rate.paused + nanos }
}
