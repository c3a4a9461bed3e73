/** The pauses of a throttle: until when no call may start, and how much of a wait was a pause. All in nanoseconds. */
export interface Pauses {
  /** The total length of all pauses before the latest. */
  past: number
  /** The latest pause, from `from` to `until`, also when it is over. */
  from: number
  until: number
}

export const none = (): Pauses => ({ past: 0, from: 0, until: -Infinity })

/** Begins a pause, or lengthens the present one. */
export const extend = (pauses: Pauses, now: number, until: number): void => {
  if (pauses.until <= now) {
    pauses.past = upTo(pauses, now)
    pauses.from = now
  }
  pauses.until = Math.max(pauses.until, until)
}

export const end = (pauses: Pauses, now: number): void => {
  pauses.until = Math.min(pauses.until, now)
}

/** Returns the total length of all pauses, past and present, up to an instant. */
export const upTo = ({ from, past, until }: Pauses, at: number): number =>
  past + Math.max(0, Math.min(at, until) - from)

/**
 * Returns the part of a wait that was a pause, in milliseconds, up to the instant `at`; `before`: the value of `upTo`
 * on arrival. Empty if there was no pause or it is infinite.
 */
export const attribute = (pauses: Pauses, before: number, at: number): { readonly paused?: number } => {
  const nanos = upTo(pauses, at) - before
  return nanos > 0 && nanos < Infinity ? { paused: nanos / 1e6 } : {}
}
