/** A server that hangs, forgets its scripts and cuts connections, under load: the limit holds, and no permit is lost. */
import { assert, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Logger, Option, Schedule } from "effect"
import { Throttle } from "effect-throttle"
import { RedisStore, RedisThrottle } from "effect-throttle/redis"
import { Redis } from "effect/persistence"
import { clientTo, describeRedis, ownServer } from "../utils/redis.ts"

const policy = Throttle.all([
  Throttle.rate({ limit: 500, burst: 50 }),
  Throttle.window({ limit: 400, per: "1 second" }),
  Throttle.concurrency({ limit: 3 })
])

const admin = (port: number, command: string, ...args: ReadonlyArray<string>) =>
  Effect.scoped(Effect.provide(Effect.flatMap(Redis.Redis, (redis) => redis.send(command, ...args)), clientTo(port)))

/** A throttle on a connection of its own, as another process has it, until the scope closes. */
const processOn = (port: number) =>
  Effect.flatMap(
    Layer.build(Layer.fresh(RedisStore.layer.pipe(Layer.provide(clientTo(port))))),
    (store) =>
      Effect.provide(
        RedisThrottle.make(policy, { key: "shared", timeout: "300 millis", leaseTtl: "1500 millis" }),
        store
      )
  )

describeRedis("whatever happens to the server", () => {
  it.live("no more calls run than may, and all permits are free in the end", () =>
    Effect.gen(function*() {
      const server = yield* ownServer()
      const { address: { port } } = server
      const processes = yield* Effect.forEach([1, 2, 3], () => processOn(port))
      const running = { now: 0, most: 0, done: 0 }
      const call = (throttle: Throttle.Throttle) =>
        Effect.exit(throttle.withPermit(Effect.acquireUseRelease(
          Effect.sync(() => {
            running.most = Math.max(running.most, ++running.now)
          }),
          () => Effect.sleep("10 millis"),
          () =>
            Effect.sync(() => {
              running.now--
              running.done++
            })
        ))).pipe(Effect.tap((exit) => Exit.isSuccess(exit) ? Effect.void : Effect.sleep("10 millis")))
      let calls = 0
      /** Every fifth call is interrupted. */
      const work = (throttle: Throttle.Throttle) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.forkChild(call(throttle))
          if (++calls % 5 > 0) return yield* Effect.asVoid(Fiber.await(fiber))
          yield* Effect.sleep(calls % 30)
          yield* Fiber.interrupt(fiber)
        })
      const workers = yield* Effect.forkChild(
        Effect.forEach([...processes, ...processes, ...processes], (throttle) => Effect.forever(work(throttle)), {
          concurrency: "unbounded"
        })
      )
      const hang = (millis: number) =>
        Effect.acquireUseRelease(Effect.sync(server.hang), () => Effect.sleep(millis), () => Effect.sync(server.wake))
      const faults = [
        hang(150),
        admin(port, "CLIENT", "KILL", "TYPE", "pubsub"),
        admin(port, "SCRIPT", "FLUSH"),
        admin(port, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
        hang(700)
      ]
      for (const fault of faults) yield* Effect.andThen(Effect.sleep("200 millis"), fault)
      yield* Effect.sleep("1500 millis")
      const before = running.done
      yield* Effect.sleep("500 millis")
      assert.isAbove(running.done - before, 10)
      yield* Fiber.interrupt(workers)
      assert.isAtMost(running.most, 3)
      // What was asked for when the connections were cut ends with its lease.
      const [one, two] = processes as [Throttle.Throttle, Throttle.Throttle, Throttle.Throttle]
      const take = Effect.timeoutOption(Effect.retry(one.takeScoped(), Schedule.spaced("50 millis")), "4 seconds")
      const taken = yield* Effect.forEach([1, 2, 3], () => take)
      assert.deepStrictEqual(taken.map(Option.isSome), [true, true, true])
      assert.isTrue(Option.isNone(yield* two.withPermitsIfAvailable(Effect.void, 1)))
    }).pipe(Effect.scoped, Effect.provide(Logger.layer([]))), 30_000)
})
