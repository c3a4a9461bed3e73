/**
 * Throttles for HTTP: a server that tells its limits.
 *
 * @since 0.1.0
 */
export * from "./keys.ts"
export * from "./middleware.ts"
export * from "./problems.ts"
