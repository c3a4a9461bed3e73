/**
 * One budget for many processes.
 *
 * @since 0.1.0
 */

export * as MemoryStore from "./MemoryStore.ts"
export * as RedisCluster from "./RedisCluster.ts"
export * as RedisStore from "./RedisStore.ts"
export * as RedisThrottle from "./RedisThrottle.ts"
export * as ThrottleStore from "./ThrottleStore.ts"
