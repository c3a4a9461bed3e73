/**
 * An HTTP client that keeps to a server's limits, and what a server's answers say of them.
 *
 * @since 0.1.0
 */
export * from "./client.ts"
export * from "./limits.ts"
