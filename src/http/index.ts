/**
 * Throttled HTTP clients and servers.
 *
 * @since 0.1.0
 */
export * as HttpThrottle from "./HttpThrottle.ts"
