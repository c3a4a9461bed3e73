/**
 * A circuit breaker.
 *
 * Three failures in a row open it for a second; then one request is let through. Failures of requests that were under way
 * at the same time count as one, since one stall fails all of them.
 */

/** Failures in a row that open it. */
const mostFailures = 3

/** How long it stays open: 1 s, in nanoseconds. */
const openFor = 1e9

export interface Breaker {
  /** Failures in a row. */
  failures: number
  /** All failures counted so far. A request is in flight with a counted failure if this has grown since it was sent. */
  counted: number
  /** When it lets the next request through, in nanoseconds. */
  openUntil: number
}

export const make = (): Breaker => ({ failures: 0, counted: 0, openUntil: 0 })

/** Nanoseconds for which it lets no request through; 0 lets this one through, and holds back others for `timeout`. */
export const refusedFor = (breaker: Breaker, now: number, timeout: number): number => {
  if (breaker.failures < mostFailures) return 0
  if (breaker.openUntil > now) return breaker.openUntil - now
  breaker.openUntil = now + timeout
  return 0
}

/** A request was answered. Returns whether that ends a row of failures. */
export const succeed = (breaker: Breaker): boolean => {
  if (breaker.failures === 0) return false
  breaker.failures = 0
  return true
}

/** A request failed that was sent when `counted` was `sentAt`. Returns what that changes. */
export const fail = (breaker: Breaker, sentAt: number, now: number): "failed" | "open" | undefined => {
  if (breaker.counted !== sentAt) return undefined
  breaker.counted++
  breaker.failures++
  if (breaker.failures >= mostFailures) breaker.openUntil = now + openFor
  return breaker.failures === 1 ? "failed" : breaker.failures === mostFailures ? "open" : undefined
}
