/**
 * The two problems (RFC 9457) that refused requests are answered with. Their types are those of the IETF draft on rate
 * limits.
 */
export const quotaExceeded = {
  type: "https://iana.org/assignments/http-problem-types#quota-exceeded",
  status: 429,
  title: "Too Many Requests"
} as const

export const reducedCapacity = {
  type: "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
  status: 503,
  title: "Service Unavailable"
} as const

/** A refusal, as a client is told of it. */
export interface Problem {
  readonly kind: typeof quotaExceeded | typeof reducedCapacity
  /** The names of the policies that refused. */
  readonly violatedPolicies: ReadonlyArray<string>
  /** Seconds; undefined where repeating the request never helps. */
  readonly retryAfter: number | undefined
  /** The same in milliseconds, for clients that read `Retry-After-Ms`; undefined where the end cannot be foreseen. */
  readonly retryAfterMillis: number | undefined
}
