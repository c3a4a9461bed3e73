/**
 * Throttles for HTTP, on `effect/http`.
 *
 * @since 0.1.0
 */
export * as HttpThrottle from "./HttpThrottle.ts"
