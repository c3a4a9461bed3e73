/**
 * Distinguishes an answer that the server has just given from one that a cache has kept without an `Age`, by its `Date`. Pure
 * functions. A server's clock may be wrong by any time, so what counts is the difference to its other answers.
 */

/** What is known of a server's clock. Times are milliseconds. */
export interface ServerClock {
  /** How far it is ahead of the client's; undefined while that is not known. */
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
  const known = offsetAt(clock, at)
  if (known !== undefined) return date - now < known - tolerance
  return date - now < -tolerance ? "unknown" : false
}

/** What is known after an answer. A refusal by a limit is never kept by a cache. */
export const observe = (
  clock: ServerClock,
  answer: { readonly date: number; readonly now: number; readonly at: number; readonly isRefusal: boolean }
): ServerClock => {
  const { at, date, isRefusal, now } = answer
  const offset = date - now
  const known = offsetAt(clock, at)
  if (isRefusal) return { offset, seenAt: at, doubtful: undefined }
  if (offset >= (known ?? 0) - tolerance) {
    return { offset: Math.max(known ?? offset, offset), seenAt: at, doubtful: undefined }
  }
  const { doubtful } = clock
  // A cache's clock stands still: one that goes is the server's.
  const goes = doubtful !== undefined && date > doubtful.date && Math.abs(offset - doubtful.offset) <= grain
  return goes && known === undefined
    ? { offset, seenAt: at, doubtful: undefined }
    : { ...clock, doubtful: { date, offset } }
}
