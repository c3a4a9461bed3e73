/** What the tests of effect-throttle/redis share. */
import { NodeRedis } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { Redis } from "effect/persistence"
import { describe, inject } from "vitest"

/** The suite's redis-server. */
const path = inject("redisSocket")

export const isThere = path !== undefined

/** Tests that need it; skipped, and said so once by the suite's setup, where there is none. */
export const describeRedis = describe.skipIf(!isThere)

/** A key that no other test uses. */
export const uniqueKey = (name: string): string => `${name}-${process.pid}-${Math.random().toString(36).slice(2)}`

/** The suite's Redis for a file's tests. */
export const RedisLive: Layer.Layer<Redis.Redis, unknown> = Layer.suspend(() =>
  NodeRedis.layer({ socket: { path: path!, tls: false } })
)

export const send = (command: string, ...args: ReadonlyArray<string>) =>
  Effect.flatMap(Redis.Redis, (redis) => redis.send(command, ...args))
