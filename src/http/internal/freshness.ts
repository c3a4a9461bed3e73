/**
 * Distinguishes an answer that the server has just given from one that a cache has kept without an `Age`, by its `Date`. Pure
 * functions. A server's clock may be wrong by any time, so what counts is the difference to its other answers.
 */

/** What is known of a server's clock. Times are milliseconds. */
export interface ServerClock {
  /** How far it is ahead of the client's monotonic clock, which is never set; undefined while that is not known. */
  readonly offset: number | undefined
  /** The monotonic instant at which that was seen last. */
  readonly seenAt: number
  /** An answer that may have come from a cache, or from a clock that is slow. */
  readonly doubtful: { readonly date: number; readonly offset: number } | undefined
}

export const unknown: ServerClock = { offset: undefined, seenAt: 0, doubtful: undefined }

/** An answer that is older than this is no longer taken for a fresh one. */
const tolerance = 60_000

/** What was seen longer ago than this is forgotten, since clocks are corrected. */
const memory = 600_000

/** `Date` has whole seconds. */
const grain = 2_000

const offsetAt = ({ offset, seenAt }: ServerClock, at: number): number | undefined =>
  at - seenAt > memory ? undefined : offset

/**
 * Whether an answer of this `Date` is old: yes, no, or "unknown", where it may be the server's clock that is slow. `now` is the
 * client's clock, `at` the monotonic one.
 */
export const isOld = (clock: ServerClock, date: number, now: number, at: number): boolean | "unknown" => {
  if (agrees(date, now)) return false
  const known = offsetAt(clock, at)
  if (known !== undefined) return date - at < known - tolerance
  return date - now < -tolerance && !goes(clock, date, at) ? "unknown" : false
}

/** Two clocks that say the same are right, whatever was seen before: the server's may have been set. */
const agrees = (date: number, now: number): boolean => Math.abs(date - now) <= grain

/** Whether it is the server's own clock that is slow: a cache's clock stands still. */
const goes = ({ doubtful }: ServerClock, date: number, at: number): boolean =>
  doubtful !== undefined && date > doubtful.date && Math.abs(date - at - doubtful.offset) <= grain

/** What is known of a server's clock after an answer. A refusal by a limit is never kept by a cache. */
export const observe = (
  clock: ServerClock,
  answer: { readonly date: number; readonly now: number; readonly at: number; readonly isRefusal: boolean }
): ServerClock => {
  const { at, date, isRefusal, now } = answer
  const offset = date - at
  const known = offsetAt(clock, at)
  if (isRefusal || agrees(date, now)) return { offset, seenAt: at, doubtful: undefined }
  if (known === undefined ? date - now >= -tolerance : offset >= known - tolerance) {
    return { offset: Math.max(known ?? offset, offset), seenAt: at, doubtful: undefined }
  }
  return known === undefined && goes(clock, date, at)
    ? { offset, seenAt: at, doubtful: undefined }
    : { ...clock, doubtful: { date, offset } }
}
