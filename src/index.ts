/**
 * A throttle decides when an effect may start, and how many may run.
 *
 * @since 0.1.0
 */

export * as Policy from "./Policy.ts"
export * as Throttle from "./Throttle.ts"
export * from "./ThrottleError.ts"
export * as ThrottleMap from "./ThrottleMap.ts"
export * as Timer from "./Timer.ts"
