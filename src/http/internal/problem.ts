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

/** What a refusal adds to its problem. */
export interface Members {
  readonly "violated-policies": ReadonlyArray<string>
  /** In seconds. */
  readonly retryAfter?: number
  readonly detail?: string
}

export interface Problem {
  readonly kind: typeof quotaExceeded | typeof reducedCapacity
  readonly members: Members
  /** The same as `retryAfter` in milliseconds, for clients that read `Retry-After-Ms`; absent where nobody can know. */
  readonly retryAfterMillis?: number
}
