/** A process of the example: 20 fibers that call as often as the shared throttle admits them, until it is stopped. */
import { NodeRedis, NodeRuntime } from "@effect/platform-node"
import { Effect } from "effect"
import { Throttle } from "effect-throttle"
import { RedisThrottle } from "effect-throttle/redis"
import { limited } from "./redis-policy.ts"

const [url, key, millis] = process.argv.slice(2) as [string, string, string]

const send = (message: unknown) => Effect.sync(() => process.send!(message))

/** Milliseconds of a clock that all processes of a machine share. */
const now = Effect.sync(() => Number(process.hrtime.bigint()) / 1e6)

const call = Throttle.withPermit(Effect.flatMap(now, send))

const program = Effect.gen(function*() {
  yield* send("ready")
  yield* Effect.callback<void>((resume) => void process.once("message", () => resume(Effect.void)))
  yield* Effect.forEach(Array.from({ length: 20 }), () => Effect.forever(call), { concurrency: "unbounded" }).pipe(
    Effect.timeoutOption(Number(millis))
  )
  process.disconnect()
})

NodeRuntime.runMain(program.pipe(
  Effect.provide(RedisThrottle.layer(limited, { key, timeout: "1 second" })),
  Effect.provide(RedisThrottle.layerClient((preset) => NodeRedis.layer({ url, ...preset })))
))
