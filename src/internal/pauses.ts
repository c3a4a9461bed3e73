/**
 * For how long a throttle has been paused: so that a wait can be told from a pause.
 */
export interface Pauses {
  /** Nanoseconds of all pauses before the latest. */
  past: number
  /** The latest, present or past. */
  from: number
  until: number
}

export const none = (): Pauses => ({ past: 0, from: 0, until: 0 })

/** Begins a pause, or makes the present one longer. */
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

/** Nanoseconds for which there was, or will be, a pause until an instant. */
export const upTo = ({ from, past, until }: Pauses, at: number): number =>
  past + Math.max(0, Math.min(at, until) - from)

/** The milliseconds of a wait, until an instant, that were a pause, as an attribute; none where there was no pause. */
export const attribute = (pauses: Pauses, before: number, at: number): { readonly paused?: number } => {
  const nanos = upTo(pauses, at) - before
  return nanos > 0 && nanos < Infinity ? { paused: nanos / 1e6 } : {}
}
