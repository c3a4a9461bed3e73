/**
 * A process that shares a throttle with others: it does what it is told by its first argument, and says by messages what
 * happened and when, on the machine's monotonic clock.
 */
import { NodeRedis } from "@effect/platform-node"
import { Clock, Effect, Layer, Queue } from "effect"
import { Throttle } from "effect-throttle"
import { RedisThrottle } from "effect-throttle/redis"

export interface Orders {
  readonly port: number
  readonly key: string
  readonly policy: unknown
  readonly leaseTtl?: number
  /** How far its clock is off, in milliseconds. */
  readonly clockOff?: number
  /** So many fibers call again and again until they are told to stop. */
  readonly waiters: number
  /** How long a call runs. */
  readonly runs?: number
}

export type Message =
  | { readonly _tag: "Ready" }
  | { readonly _tag: "Started"; readonly at: number; readonly fence?: number }
  | { readonly _tag: "Ended"; readonly at: number }
  | { readonly _tag: "Failed"; readonly why: string }
  | { readonly _tag: "Done"; readonly starts: ReadonlyArray<number> }

const orders: Orders = JSON.parse(process.argv[2]!)
const say = (message: Message) => Effect.sync(() => void process.send!(message))

/** Milliseconds, the same for all processes of a machine. */
const now = () => Number(process.hrtime.bigint()) / 1e6

const shifted = (clock: Clock.Clock): Clock.Clock => {
  const off = orders.clockOff ?? 0
  return {
    currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + off,
    currentTimeMillis: Effect.map(clock.currentTimeMillis, (millis) => millis + off),
    currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe() + BigInt(off) * 1_000_000n,
    currentTimeNanos: Effect.map(clock.currentTimeNanos, (nanos) => nanos + BigInt(off) * 1_000_000n),
    monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
    monotonicTimeNanos: clock.monotonicTimeNanos,
    sleep: (duration) => clock.sleep(duration)
  }
}

const program = Effect.gen(function*() {
  const told = yield* Queue.unbounded<string>()
  process.on("message", (message) => void Queue.offerUnsafe(told, String(message)))
  const throttle = yield* Throttle.Throttle
  yield* say({ _tag: "Ready" })
  yield* Queue.take(told)
  const starts: Array<number> = []
  const call = throttle.withPermit(
    Effect.gen(function*() {
      const at = now()
      starts.push(at)
      if (orders.runs === undefined) return
      yield* say({ _tag: "Started", at })
      yield* Effect.sleep(orders.runs)
      yield* say({ _tag: "Ended", at: now() })
    })
  )
  const calls = Effect.forEach(Array.from({ length: orders.waiters }), () => Effect.forever(call), {
    concurrency: "unbounded"
  })
  yield* Effect.raceFirst(
    Effect.catchCause(calls, (cause) => say({ _tag: "Failed", why: String(cause) })),
    Queue.take(told)
  )
  yield* say({ _tag: "Done", starts })
})

const policy = Throttle.fromData(orders.policy as never)

const RedisLive = RedisThrottle.layerClient((preset) =>
  NodeRedis.layer({ ...preset, socket: { ...preset.socket, host: "127.0.0.1", port: orders.port } })
)

await Effect.runPromise(
  Effect.flatMap(Clock.Clock, (clock) =>
    program.pipe(
      Effect.provide(
        RedisThrottle.layer(policy, {
          key: orders.key,
          timeout: "5 seconds",
          ...(orders.leaseTtl === undefined ? {} : { leaseTtl: orders.leaseTtl })
        }).pipe(Layer.provide(RedisLive))
      ),
      Effect.provideService(Clock.Clock, shifted(clock))
    )) as Effect.Effect<void>
)
process.exit(0)
