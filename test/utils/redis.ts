/** What the tests of effect-throttle/redis share. */
import { NodeRedis } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { RedisThrottle } from "effect-throttle/redis"
import { Redis } from "effect/persistence"
import { describe, inject } from "vitest"
import { startTcpServer } from "./redis-server.ts"

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

/** A server that a test may stop, hang or configure; it is removed when the scope closes. */
export const ownServer = (...options: ReadonlyArray<string>) =>
  Effect.acquireRelease(Effect.promise(() => startTcpServer(...options)), (server) => Effect.promise(server.close))

/** The documented client, connected to a port of this machine. */
export const clientTo = (port: number, login: { readonly username?: string; readonly password?: string } = {}) =>
  RedisThrottle.layerClient((preset) =>
    NodeRedis.layer({ ...preset, ...login, socket: { ...preset.socket, host: "127.0.0.1", port } })
  )
