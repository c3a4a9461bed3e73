/**
 * A real Redis that is stopped, hung, restarted, emptied, or cut off: nobody waits longer than told, nothing is replayed,
 * and it goes on by itself when Redis is back.
 */
import { NodeRedis } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Logger, Metric, Option, Schedule, type Scope } from "effect"
import { Throttle, ThrottleError } from "effect-throttle"
import { RedisStore, RedisThrottle } from "effect-throttle/redis"
import { Redis } from "effect/persistence"
import { startProxy } from "../utils/proxy.ts"
import { startTcpServer } from "../utils/redis-server.ts"
import { describeRedis, uniqueKey } from "../utils/redis.ts"

/** A server of this test's own, and how to reach it. */
const serverOf = Effect.acquireRelease(Effect.promise(() => startTcpServer()), (server) => Effect.promise(server.close))

type Server = Awaited<ReturnType<typeof startTcpServer>>

const proxyTo = (server: Server) =>
  Effect.acquireRelease(Effect.promise(() => startProxy(server.address.port)), (proxy) => Effect.promise(proxy.close))

const clientOf = (port: number) =>
  RedisThrottle.layerClient((preset) =>
    NodeRedis.layer({ ...preset, socket: { ...preset.socket, host: "127.0.0.1", port } })
  )

/** The messages of all logs of the store. */
const logging = () => {
  const messages: Array<string> = []
  const logger = Logger.make(({ message }) => {
    const text = String(Array.isArray(message) ? message[0] : message)
    if (text.startsWith("throttle.store")) messages.push(text)
  })
  return { messages, layer: Logger.layer([logger]) }
}

/** Milliseconds until it has ended, and how. */
const timed = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const began = performance.now()
    const exit = yield* Effect.exit(self)
    return { took: performance.now() - began, exit }
  })

const storeErrorOf = (exit: Exit.Exit<unknown, unknown>) => {
  const error = Option.getOrThrow(Exit.findErrorOption(exit)) as ThrottleError
  assert.strictEqual(error.reason._tag, "StoreError")
  return error.reason as Extract<ThrottleError["reason"], { _tag: "StoreError" }>
}

/** How long a decision may take here: a busy machine may well stand still for a tenth of a second. */
const patience = 300

/** What a busy machine adds. */
const slack = 800

/** A bucket that does not refill while a test runs. */
const bucket = (capacity: number) => Throttle.tokenBucket({ capacity, refill: 1, per: "1 day" })

/** How many permits are left: takes them all. */
const drain = Effect.gen(function*() {
  let taken = 0
  while (Option.isSome(yield* Throttle.withPermitsIfAvailable(Effect.void, 1))) taken++
  return taken
})

/** Asks until the store answers again; so many milliseconds that takes. */
const recovery = Effect.gen(function*() {
  const began = performance.now()
  yield* Throttle.withPermitsIfAvailable(Effect.void, 0).pipe(
    Effect.retry({ schedule: Schedule.spaced("20 millis"), times: 250 })
  )
  return performance.now() - began
})

const test = (
  name: string,
  body: (server: Server) => Effect.Effect<void, unknown, Scope.Scope>
) => it.live(name, () => Effect.scoped(Effect.flatMap(serverOf, body)), 20_000)

const on = (port: number, policy: Throttle.Policy<any>, options: Partial<RedisThrottle.Options> = {}) =>
  RedisThrottle.layer(policy, { key: uniqueKey("failure"), timeout: patience, ...options }).pipe(
    Layer.provideMerge(clientOf(port))
  )

/** Calls while there is no store: none waits longer than told, and after three the breaker is open. */
const assertBounded = Effect.gen(function*() {
  const outcomes: Array<string> = []
  for (let i = 0; i < 6; i++) {
    const { exit, took } = yield* timed(Throttle.wait())
    assert.isBelow(took, patience + slack)
    outcomes.push(storeErrorOf(exit).outcome)
  }
  assert.deepStrictEqual(outcomes.slice(3), ["open", "open", "open"])
  return outcomes.slice(0, 3)
})

const quiet = Effect.provide(Logger.layer([]))

/** It fails, is left alone, and comes back: that is said once each. */
const onceEach = ["throttle.store.failed", "throttle.store.open", "throttle.store.recovered"]

const withLogs = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const { layer, messages } = logging()
    return Effect.as(Effect.provide(self, layer), messages)
  })

/** This process stands still. */
const stall = (millis: number) =>
  Effect.sync(() => {
    for (const end = performance.now() + millis; performance.now() < end;);
  })

const turn = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))

const requests = (outcome: string) =>
  Effect.map(
    Metric.value(RedisThrottle.metrics.requests.pipe(Metric.withAttributes({ outcome }))),
    ({ count }) => count
  )

describeRedis("when Redis", () => {
  test("is stopped, and comes back: it costs one burst more, and is said in the logs", (server) =>
    Effect.gen(function*() {
      const messages = yield* withLogs(
        Effect.gen(function*() {
          const answered = yield* requests("answered")
          assert.strictEqual(yield* drain, 5)
          assert.strictEqual((yield* requests("answered")) - answered, 6)
          yield* Effect.promise(server.stop)
          yield* Effect.sleep("50 millis")
          assert.deepStrictEqual(yield* assertBounded, ["unavailable", "unavailable", "unavailable"])
          yield* Effect.promise(server.start)
          // The breaker's second, and a quarter for the connection
          assert.isBelow(yield* recovery, 1_250 + slack)
          assert.strictEqual(yield* drain, 5)
        }).pipe(Effect.provide(on(server.address.port, bucket(5))))
      )
      assert.deepStrictEqual(messages, onceEach)
    }))

  test("is not there at the beginning: the client's Layer fails at once", (server) =>
    Effect.gen(function*() {
      yield* Effect.promise(server.stop)
      const { exit, took } = yield* timed(Effect.provide(Throttle.wait(), on(server.address.port, bucket(1))))
      assert.isBelow(took, slack)
      const error = Option.getOrThrow(Exit.findErrorOption(exit))
      assert.instanceOf(error, Redis.RedisError)
    }).pipe(quiet))

  test("hangs: decisions that nobody waits for any more are not replayed, but for those under way", (server) =>
    Effect.gen(function*() {
      yield* Throttle.wait()
      server.hang()
      const before = [yield* requests("timeout"), yield* requests("open")] as const
      assert.deepStrictEqual(yield* assertBounded, ["timeout", "timeout", "timeout"])
      assert.strictEqual((yield* requests("timeout")) - before[0], 3)
      assert.strictEqual((yield* requests("open")) - before[1], 3)
      server.wake()
      assert.isBelow(yield* recovery, 1_000 + slack)
      const left = yield* drain
      // Three were under way; what their late answers granted comes back where nothing has changed since.
      assert.isAtLeast(left, 9 - 3)
      assert.isAtMost(left, 9)
    }).pipe(
      Effect.provide(on(server.address.port, bucket(10))),
      withLogs,
      Effect.map((messages) => assert.deepStrictEqual(messages, onceEach))
    ))

  test("hangs while many wait: all are told", (server) =>
    Effect.gen(function*() {
      yield* Throttle.wait()
      const crowd = yield* Effect.forkChild(
        Effect.forEach(Array.from({ length: 200 }), () => Effect.exit(Throttle.wait()), { concurrency: "unbounded" })
      )
      yield* Effect.sleep("30 millis")
      server.hang()
      const { took } = yield* timed(Fiber.join(crowd))
      // A slot, and three decisions
      assert.isBelow(took, 200 + 3 * patience + slack)
      for (const exit of (yield* Fiber.join(crowd)).filter(Exit.isFailure)) storeErrorOf(exit)
      server.wake()
    }).pipe(Effect.provide(on(server.address.port, Throttle.rate({ limit: 10 }))), quiet))

  test("hangs, with onStoreError: allow, or a share", (server) =>
    Effect.gen(function*() {
      const starts = (options: Partial<RedisThrottle.Options>) =>
        Effect.gen(function*() {
          yield* Throttle.wait()
          server.hang()
          const began = performance.now()
          yield* Effect.forEach(Array.from({ length: 8 }), () => Throttle.wait(), { concurrency: "unbounded" })
          const took = performance.now() - began
          server.wake()
          return took
        }).pipe(Effect.provide(on(server.address.port, Throttle.rate({ limit: 100 }), options), { local: true }))
      assert.isBelow(yield* starts({ onStoreError: "allow" }), 3 * patience + slack)
      // One every 40 ms: 7 gaps, after the decision's time
      const shared = yield* starts({ onStoreError: { local: 0.25 } })
      assert.isAtLeast(shared, 279)
      const kinds = yield* Effect.forEach(["allowed", "local"], (kind) =>
        Metric.value(RedisThrottle.metrics.fallbacks.pipe(Metric.withAttributes({ throttle: "rate", kind }))))
      for (const { count } of kinds) {
        assert.isAtLeast(count, 1)
      }
    }).pipe(quiet))

  test("is restarted: one burst more, and a lease is lost", (server) =>
    Effect.gen(function*() {
      const work = yield* Effect.forkChild(Throttle.withPermit(Effect.never))
      yield* Effect.sleep("100 millis")
      yield* Effect.promise(server.stop)
      yield* Effect.promise(server.start)
      const { exit, took } = yield* timed(Fiber.join(work))
      assert.isBelow(took, 1_500 + slack)
      const error = Option.getOrThrow(Exit.findErrorOption(exit)) as ThrottleError
      assert.strictEqual(error.reason._tag, "LeaseLost")
      yield* recovery
      assert.strictEqual(yield* Throttle.withPermit(Effect.succeed(1)), 1)
    }).pipe(
      Effect.provide(on(server.address.port, Throttle.concurrency({ limit: 1 }), { leaseTtl: "1500 millis" })),
      quiet
    ))

  test("stalls once for less than two timeouts: the calls in flight fail, and the next ones are answered", (server) =>
    Effect.gen(function*() {
      const keys = ["a", "b", "c", "d", "e", "f", "g", "h"]
      const tenants = yield* RedisThrottle.makeMap({
        name: "tenants",
        lookup: (_tenant: string) => bucket(100),
        timeout: patience
      })
      yield* Effect.forEach(keys, (key) => tenants.wait(key))
      server.hang()
      const inFlight = yield* Effect.forEach(
        keys,
        (key) => Effect.forkChild(Effect.exit(tenants.wait(key)), { startImmediately: true })
      )
      yield* Effect.sleep(patience * 1.5)
      server.wake()
      for (const call of inFlight) assert.strictEqual(storeErrorOf(yield* Fiber.join(call)).outcome, "timeout")
      for (const key of keys) yield* tenants.wait(key)
    }).pipe(
      Effect.scoped,
      Effect.provide(RedisStore.layer.pipe(Layer.provide(clientOf(server.address.port)))),
      withLogs,
      Effect.map((messages) => assert.deepStrictEqual(messages, ["throttle.store.failed", "throttle.store.recovered"]))
    ))

  test("has answered, but this process stands still and reads it late: nothing has failed", (server) =>
    Effect.gen(function*() {
      const tenants = yield* RedisThrottle.makeMap({
        name: "tenants",
        lookup: (_tenant: string) => Throttle.rate({ limit: 1_000, burst: 100 }),
        timeout: "100 millis"
      })
      // The connection and the script are there.
      yield* Effect.retry(tenants.wait("warm"), { times: 5, schedule: Schedule.spaced("300 millis") })
      for (const turns of [0, 1, 2, 3]) {
        const calls = yield* Effect.forEach(
          ["a", "b", "c"],
          (tenant) => Effect.forkChild(Effect.exit(tenants.wait(tenant)), { startImmediately: true })
        )
        // Sent, or not yet
        for (let i = 0; i < turns; i++) yield* turn
        yield* stall(150)
        for (const call of calls) assert.isTrue(Exit.isSuccess(yield* Fiber.join(call)))
      }
    }).pipe(
      Effect.scoped,
      Effect.provide(RedisStore.layer.pipe(Layer.provide(clientOf(server.address.port)))),
      withLogs,
      Effect.map((messages) => assert.deepStrictEqual(messages, []))
    ))

  test("has one key that holds something else: only its own calls fail", (server) =>
    Effect.gen(function*() {
      const redis = yield* Redis.Redis
      yield* redis.send("HSET", "throttle:tenants:{bad}", "a", "b")
      const tenants = yield* RedisThrottle.makeMap({
        name: "tenants",
        lookup: (_tenant: string) => bucket(9),
        timeout: patience
      })
      for (let i = 0; i < 4; i++) {
        assert.strictEqual(storeErrorOf(yield* Effect.exit(tenants.wait("bad"))).outcome, "refused")
      }
      yield* tenants.wait("good")
      // What goes for every key counts.
      yield* redis.send("CONFIG", "SET", "maxmemory", "1")
      const outcomes = []
      for (let i = 0; i < 4; i++) outcomes.push(storeErrorOf(yield* Effect.exit(tenants.wait("good"))).outcome)
      assert.deepStrictEqual(outcomes, ["unavailable", "unavailable", "unavailable", "open"])
    }).pipe(
      Effect.scoped,
      Effect.provide(RedisStore.layer.pipe(Layer.provideMerge(clientOf(server.address.port)))),
      quiet
    ))

  it.live("is a cluster: all keys of a map lie in one slot each, whatever they are", () =>
    Effect.gen(function*() {
      const server = yield* Effect.acquireRelease(
        Effect.promise(() => startTcpServer("--cluster-enabled", "yes")),
        (server) => Effect.promise(server.close)
      )
      yield* Effect.gen(function*() {
        const redis = yield* Redis.Redis
        yield* redis.send("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        yield* Effect.repeat(redis.send<string>("CLUSTER", "INFO"), {
          until: (info) => info.includes("cluster_state:ok"),
          schedule: Schedule.spaced("50 millis")
        })
        const tenants = yield* RedisThrottle.makeMap({
          name: "tenants",
          lookup: (_tenant: string) => Throttle.all([bucket(9), Throttle.concurrency({ limit: 1 })]),
          timeout: "5 seconds"
        })
        for (const tenant of ["a", "", "%", "}", "}a", "a}", "{", "{}"]) {
          assert.strictEqual(yield* tenants.withPermit(tenant)(Effect.succeed(tenant)), tenant)
        }
        const keys = (yield* redis.send("KEYS", "throttle:*")) as Array<string>
        assert.strictEqual(keys.filter((key) => key.endsWith("}")).length, 8, keys.join(" "))
        const levels = Throttle.levels([tenants.get("{a}:ada"), tenants.get("a")])
        assert.strictEqual(yield* levels.withPermit(Effect.succeed("levels")), "levels")
      }).pipe(Effect.provide(RedisStore.layer.pipe(Layer.provideMerge(clientOf(server.address.port)))))
    }).pipe(Effect.scoped, quiet), 20_000)

  test("forgets its scripts: nobody notices", (server) =>
    Effect.gen(function*() {
      const redis = yield* Redis.Redis
      yield* Throttle.wait()
      yield* redis.send("SCRIPT", "FLUSH")
      yield* Throttle.wait()
      assert.strictEqual(yield* drain, 3)
    }).pipe(Effect.provide(on(server.address.port, bucket(5))), quiet))

  test("forgets everything: one burst more, and a lease is lost at its next renewal", (server) =>
    Effect.gen(function*() {
      const redis = yield* Redis.Redis
      const throttle = yield* Throttle.Throttle
      const fence: Array<number> = []
      const work = yield* Effect.forkChild(throttle.withPermit(
        Effect.flatMap(RedisThrottle.currentFence, (one) => {
          fence.push(Option.getOrThrow(one))
          return Effect.never
        })
      ))
      yield* Effect.sleep("100 millis")
      yield* redis.send("FLUSHALL")
      const { exit, took } = yield* timed(Fiber.join(work))
      assert.isBelow(took, 200 + slack)
      const { reason } = Option.getOrThrow(Exit.findErrorOption(exit)) as ThrottleError
      assert.deepStrictEqual([reason._tag, reason._tag === "LeaseLost" && reason.fence], ["LeaseLost", fence[0]])
      // A fencing number outlives the key
      const next = Option.getOrThrow(yield* throttle.withPermit(RedisThrottle.currentFence))
      assert.isAbove(next, fence[0]!)
    }).pipe(
      Effect.provide(on(server.address.port, Throttle.concurrency({ limit: 1 }), { leaseTtl: "600 millis" })),
      withLogs,
      Effect.map((messages) => assert.deepStrictEqual(messages, []))
    ))

  test("cannot be reached for a second: it fails fast, and no decision is replayed", (server) =>
    Effect.gen(function*() {
      const proxy = yield* proxyTo(server)
      yield* Effect.gen(function*() {
        for (let i = 0; i < 10; i++) yield* Throttle.wait()
        proxy.cut()
        yield* Effect.sleep("50 millis")
        const began = performance.now()
        while (performance.now() - began < 1_000) {
          const { exit, took } = yield* timed(Throttle.wait())
          assert.isBelow(took, patience + slack)
          storeErrorOf(exit)
          yield* Effect.sleep("5 millis")
        }
        proxy.heal()
        assert.isBelow(yield* recovery, 1_250 + slack)
        assert.strictEqual(yield* drain, 90)
      }).pipe(
        Effect.provide(on(proxy.port, bucket(100))),
        withLogs,
        Effect.map((messages) => assert.deepStrictEqual(messages, onceEach))
      )
    }))
})
