/**
 * Throttles for HTTP: a client that keeps to a server's limits, and a server that tells them.
 *
 * @since 0.1.0
 * @module HttpThrottle
 */
export * from "./client.ts"
export * from "./clientOptions.ts"
export * from "./clientStatistics.ts"
export * from "./dialects.ts"
export * from "./keys.ts"
export * from "./limits.ts"
export * from "./middleware.ts"
export * from "./problems.ts"
export * from "./refusalBodies.ts"
export * from "./refusals.ts"
export * from "./serverOptions.ts"
export * from "./verdict.ts"
