/**
 * The maximum number of held permits of a permit-based part. A limit may learn from the ends of calls; none does so yet.
 */
export interface Limit {
  /** The limit at the beginning. */
  readonly initial: number
  /**
   * Returns the limit that applies after the end of a call. Absent if the limit does not learn; then the end of a call
   * reads no clock.
   */
  readonly onEnd?: (end: End) => number
}

/** The end of a call that held permits. */
export interface End {
  readonly exit: unknown
  readonly heldNanos: number
  readonly permits: number
  /** The number of held permits, those of this call included. */
  readonly held: number
}
