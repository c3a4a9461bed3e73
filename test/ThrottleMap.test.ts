/**
 * One throttle a key: the same as a throttle of its own, for as many keys as there are.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Data, Duration, Effect, Exit, Fiber, Metric, Option, Schema, Scope } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { TestClock } from "effect/testing"
import { heapUsed } from "./utils/heap.ts"
import { fork, inMillis, reasonOf } from "./utils/kit.ts"
import * as Simulator from "./utils/simulator.ts"
import * as Sweep from "./utils/sweep.ts"

const perSecond = Throttle.rate({ limit: 1 })

const mapOf = (policy: Throttle.Policy<any>, options: Partial<ThrottleMap.Options<string>> = {}) =>
  ThrottleMap.make<string>({ lookup: () => policy, ...options })

/** Calls for a key that will do nothing but make the map look for keys to drop. */
const look = (map: ThrottleMap.ThrottleMap<string>, times: number) =>
  Effect.repeat(map.withPermits("looking", 0)(Effect.void), { times: times - 1 })

describe("a map", () => {
  it.effect("gives each key its own budget and queue", () =>
    Effect.gen(function*() {
      const map = yield* mapOf(perSecond)
      const order: Array<string> = []
      const call = (key: string) => map.withPermit(key)(Effect.sync(() => void order.push(key)))
      yield* Effect.forEach(["a", "a", "b", "b", "a"], (key) => Effect.forkChild(call(key), { startImmediately: true }))
      assert.deepStrictEqual(order, ["a", "b"])
      assert.strictEqual((yield* map.statistics).waiting, 3)
      yield* TestClock.adjust("999 millis")
      assert.deepStrictEqual(order, ["a", "b"])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(order.toSorted(), ["a", "a", "b", "b"])
      yield* TestClock.adjust("1 second")
      assert.strictEqual(order.length, 5)
    }))

  it.effect("calls lookup for the policy of a key", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({
        lookup: (n: number) => Throttle.rate({ limit: 1, burst: n })
      })
      const atOnce = (n: number) =>
        Effect.gen(function*() {
          let granted = 0
          while (Option.isSome(yield* map.withPermitsIfAvailable(n, 1)(Effect.void))) granted++
          return granted
        })
      assert.strictEqual(yield* atOnce(0), 1)
      assert.strictEqual(yield* atOnce(4), 5)
    }))

  it.effect("has every operation of a throttle for each key", () =>
    Effect.gen(function*() {
      const map = yield* mapOf(Throttle.tokenBucket({ capacity: 10, refill: 10, unit: "tokens" }))
      yield* map.withPermits("a", { tokens: 4 })(Effect.void)
      assert.deepStrictEqual(yield* map.estimateWait("a", { tokens: 6 }), Option.some(Duration.zero))
      assert.deepStrictEqual(yield* map.estimateWait("a", { tokens: 7 }), Option.some(Duration.millis(100)))
      yield* map.usePermits("a", { tokens: 6 })((permit) => permit.settle({ tokens: 1 }))
      assert.deepStrictEqual(yield* map.estimateWait("a", { tokens: 5 }), Option.some(Duration.zero))
      yield* Effect.scoped(Effect.flatMap(map.takeScoped("a", { tokens: 5 }), (permit) => permit.cancel))
      assert.deepStrictEqual(yield* map.estimateWait("a", { tokens: 5 }), Option.some(Duration.zero))
      yield* map.pause("a", "1 second")
      const waiting = yield* Effect.forkChild(map.wait("a", { tokens: 1 }), { startImmediately: true })
      assert.strictEqual((yield* map.statisticsOf("a")).waiting, 1)
      assert.strictEqual((yield* map.statisticsOf("b")).waiting, 0)
      yield* map.resume("a")
      yield* Fiber.join(waiting)
      const exit = yield* Effect.exit(map.withPermits("a", { tokens: 11 })(Effect.void))
      assert.strictEqual(reasonOf(exit), "PermitsExceedCapacity")
      assert.isTrue(Exit.hasDies(yield* Effect.exit(map.withPermits("a", { apples: 1 })(Effect.void))))
    }))

  it.effect("interrupts waiting and later calls when its scope closes", () =>
    Effect.gen(function*() {
      for (const policy of [perSecond, Throttle.concurrency({ limit: 1 })]) {
        const scope = yield* Scope.make()
        const map = yield* Scope.provide(mapOf(policy), scope)
        const run = map.withPermit("a")(Effect.never)
        const fibers = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(run, { startImmediately: true }))
        yield* Scope.close(scope, Exit.void)
        for (const fiber of fibers.slice(1)) {
          const exit = yield* Fiber.await(fiber)
          assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
        }
        for (const key of ["a", "b"]) {
          const late = yield* Effect.forkChild(map.withPermit(key)(Effect.void), { startImmediately: true })
          const exit = yield* Fiber.await(late)
          assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause), key)
        }
      }
    }))

  it.effect("throws a RangeError for invalid options; a lookup that returns no policy is a defect of the call", () =>
    Effect.gen(function*() {
      const lookup = () => perSecond
      const bad: ReadonlyArray<readonly [options: object, message: string]> = [
        [{}, `ThrottleMap: "lookup" must be a function from a key to a policy, received undefined`],
        [
          { lookup, maxkeys: 1 },
          `ThrottleMap: unknown option "maxkeys"; the options are lookup, maxKeys, onFull, name`
        ],
        [{ lookup, maxKeys: 0 }, `ThrottleMap: "maxKeys" must be an integer ≥ 1 or Infinity, received 0`],
        [{ lookup, maxKeys: 1.5 }, `ThrottleMap: "maxKeys" must be an integer ≥ 1 or Infinity, received 1.5`],
        [{ lookup, onFull: "drop" }, `ThrottleMap: "onFull" must be "refuse" or "evict", received "drop"`],
        [{ lookup, name: "" }, `ThrottleMap: "name" must be a non-empty string, received ""`]
      ]
      for (const [options, message] of bad) {
        assert.throws(() => ThrottleMap.make(options as any), RangeError, message)
        assert.throws(() => ThrottleMap.Service<any>()("bad", options as any), RangeError, message)
      }
      const map = yield* ThrottleMap.make({ lookup: (() => 1) as any, name: "hosts" })
      const exit = yield* Effect.exit(map.withPermit("a")(Effect.void))
      assert.include(String(exit), `throttleMap "hosts": what lookup returns must be a policy, received 1`)
    }))
})

describe("a class of it", () => {
  class Tenants extends ThrottleMap.Service<Tenants>()<"app/Tenants", string>("app/Tenants", {
    lookup: () => Throttle.rate({ limit: 1, maxQueue: 0 })
  }) {}

  it.effect("is provided at the edge, and replaced in a test", () => {
    const twice = Effect.andThen(
      Effect.void.pipe(Tenants.withPermit("a")),
      Effect.exit(Effect.void.pipe(Tenants.withPermit("a")))
    )
    return Effect.gen(function*() {
      const refused = yield* Effect.provide(twice, Tenants.layerWith({ lookup: () => refusing }))
      const error = Option.getOrThrow(Exit.findErrorOption(refused))
      assert.strictEqual(error.reason._tag, "QueueFull")
      assert.strictEqual(error.reason.throttle, "app/Tenants")
      assert.isTrue(Exit.isSuccess(yield* Effect.provide(twice, Tenants.layerWith({ lookup: () => Throttle.none }))))
    })
  })

  const refusing = Throttle.rate({ limit: 1, maxQueue: 0 })

  it.effect("has every function of a map as a static", () =>
    Effect.gen(function*() {
      yield* Tenants.withPermits("a", 1)(Effect.void)
      yield* Tenants.wait("b")
      yield* Effect.scoped(Tenants.takeScoped("c"))
      yield* Tenants.usePermits("d", 1)((permit) =>
        Effect.gen(function*() {
          assert.strictEqual((yield* Tenants.statisticsOf("d")).admitted, 1)
          yield* permit.cancel
        })
      )
      assert.isTrue(Option.isSome(yield* Tenants.estimateWait("e")))
      yield* Tenants.pause("f", "1 hour")
      assert.isTrue(Option.isNone(yield* Tenants.withPermitsIfAvailable("f", 1)(Effect.void)))
      assert.strictEqual((yield* Tenants.statistics).keys, 4)
      yield* Tenants.resume("f")
      // Of a, b and c something is spent; d was taken back, e only asked about, and f is not paused any more.
      assert.strictEqual((yield* Tenants.statistics).keys, 3)
      assert.strictEqual((yield* Tenants.statisticsOf("d")).admitted, 0)
      assert.strictEqual((yield* Tenants.statistics).admitted, 4)
    }).pipe(Effect.provide(Tenants.layerWith({ lookup: () => perSecond }))))
})

describe("keys that are dropped", () => {
  it.effect("idle keys are dropped when their state is initial again, by calls of other keys", () =>
    Effect.gen(function*() {
      const map = yield* mapOf(Throttle.rate({ limit: 1, burst: 1_000 }))
      for (let i = 0; i < 1_000; i++) yield* map.withPermit(`key ${i}`)(Effect.void)
      assert.strictEqual((yield* map.statistics).keys, 1_000)
      yield* look(map, 1_000)
      assert.strictEqual((yield* map.statistics).keys, 1_001)
      yield* TestClock.adjust("1 second")
      yield* look(map, 600)
      assert.isAtMost((yield* map.statistics).keys, 1)
      assert.strictEqual((yield* map.statistics).admitted, 2_600)
    }))

  it.effect("keys that hold permits, wait, are paused or may be settled stay, and idle concurrency keys are dropped", () =>
    Effect.gen(function*() {
      const map = yield* mapOf(Throttle.concurrency({ limit: 1 }))
      const fibers = yield* Effect.forEach(
        ["running", "waiting", "waiting", "interrupted"],
        (key) => Effect.forkChild(map.withPermit(key)(Effect.never), { startImmediately: true })
      )
      yield* map.pause("paused", "1 hour")
      yield* Fiber.interrupt(fibers[3]!)
      yield* look(map, 100)
      assert.isAtMost((yield* map.statistics).keys, 4)
      assert.strictEqual((yield* map.statistics).running, 2)
      assert.strictEqual((yield* map.statistics).waiting, 1)
      assert.isTrue(Option.isNone(yield* map.withPermitsIfAvailable("running", 1)(Effect.void)))
      assert.isTrue(Option.isNone(yield* map.withPermitsIfAvailable("paused", 1)(Effect.void)))
      yield* Fiber.interruptAll(fibers)
      yield* TestClock.adjust("1 hour")
      yield* look(map, 100)
      assert.isAtMost((yield* map.statistics).keys, 1)
      const { admitted, interrupted, running, waiting } = yield* map.statistics
      assert.deepStrictEqual({ admitted, interrupted, running, waiting }, {
        admitted: 203,
        interrupted: 1,
        running: 0,
        waiting: 0
      })
    }))

  it.effect("a window of which something was taken back is dropped like any other", () =>
    Effect.gen(function*() {
      const map = yield* mapOf(Throttle.window({ limit: 10, per: "1 second" }), { maxKeys: 1 })
      const scope = yield* Scope.make()
      const permit = yield* Scope.provide(map.takeScoped("a"), scope)
      for (let i = 0; i < 2; i++) {
        yield* TestClock.adjust(100)
        yield* map.withPermit("a")(Effect.void)
      }
      yield* permit.cancel
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 hour")
      yield* map.withPermit("b")(Effect.void)
    }))

  it.effect("estimates and rejected calls evict no other key", () =>
    Effect.gen(function*() {
      const lookup = (key: string) => {
        if (key === "bad") throw new Error("no such key")
        return perHour
      }
      const map = yield* ThrottleMap.make({ lookup, maxKeys: 1, onFull: "evict" })
      yield* map.withPermit("a")(Effect.void)
      yield* map.statisticsOf("b")
      yield* map.estimateWait("b")
      yield* map.resume("b")
      for (const cost of [2, { apples: 1 }]) {
        yield* Effect.exit(map.withPermits("b", cost)(Effect.void))
        yield* Effect.exit(map.withPermitsIfAvailable("b", cost)(Effect.void))
        yield* Effect.exit(Effect.scoped(map.takeScoped("b", cost)))
        yield* Effect.exit(map.usePermits("b", cost)(() => Effect.void))
      }
      const exit = yield* Effect.exit(map.pause("b", NaN))
      assert.isTrue(Exit.hasDies(exit))
      yield* Effect.exit(map.withPermit("bad")(Effect.void))
      assert.strictEqual((yield* map.statistics).keysEvicted, 0)
      assert.strictEqual((yield* map.statistics).rejected.PermitsExceedCapacity, 4)
      assert.isFalse(Option.exists(yield* map.estimateWait("a"), Duration.isZero))
    }))

  const perHour = Throttle.rate({ limit: 1, per: "1 hour" })

  it.effect("evicts by when a key was used last, however it was used", () =>
    Effect.gen(function*() {
      const uses: Record<string, (map: ThrottleMap.ThrottleMap<string>) => Effect.Effect<unknown, unknown>> = {
        ifAvailable: (map) => map.withPermitsIfAvailable("a", 1)(Effect.void),
        takeScoped: (map) => Effect.scoped(map.takeScoped("a")),
        usePermits: (map) => map.usePermits("a", 1)(() => Effect.void),
        paused: (map) =>
          map.withPermit("a")(Effect.void).pipe(
            Effect.andThen(map.pause("a", "1 hour")),
            Effect.andThen(map.resume("a"))
          )
      }
      for (const [name, use] of Object.entries(uses)) {
        const map = yield* mapOf(perHour, { maxKeys: 2, onFull: "evict" })
        yield* use(map)
        yield* map.withPermit("b")(Effect.void)
        yield* map.withPermit("c")(Effect.void)
        const isKnown = (key: string) =>
          Effect.map(map.estimateWait(key), (wait) => !Option.exists(wait, Duration.isZero))
        assert.deepStrictEqual(
          [yield* isKnown("a"), yield* isKnown("b"), yield* isKnown("c")],
          [false, true, true],
          name
        )
      }
    }))

  it.effect("a key whose use is over makes room at once, however many others are in use", () =>
    Effect.gen(function*() {
      for (const onFull of ["refuse", "evict"] as const) {
        for (let offset = 0; offset < 100; offset += 5) {
          const map = yield* mapOf(Throttle.concurrency({ limit: 1 }), { maxKeys: 100, onFull })
          const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
          for (let i = 0; i < 100; i++) {
            const use = i % 2 === 0 ? map.withPermit(`k${i}`)(Effect.never) : Effect.scoped(
              Effect.andThen(map.takeScoped(`k${i}`), Effect.never)
            )
            fibers.push(yield* Effect.forkChild(use, { startImmediately: true }))
          }
          yield* Fiber.interruptAll(fibers.filter((_, i) => (i - offset + 100) % 100 >= 50))
          assert.strictEqual((yield* map.statistics).keys, 50)
          yield* map.withPermit("new")(Effect.void)
          yield* Fiber.interruptAll(fibers)
          assert.strictEqual((yield* map.statistics).keys, 0)
        }
      }
    }))

  it.effect("evicting costs the same however many keys there are", () =>
    Effect.gen(function*() {
      const map = yield* mapOf(perHour, { maxKeys: 30_000, onFull: "evict" })
      const nanosOf = (from: number) =>
        Effect.gen(function*() {
          const start = process.hrtime.bigint()
          for (let i = 0; i < 10_000; i++) yield* map.withPermit(`${from + i}`)(Effect.void)
          return Number(process.hrtime.bigint() - start)
        })
      for (let i = 0; i < 30_000; i += 10_000) yield* nanosOf(i)
      const evicting: Array<number> = []
      for (let i = 30_000; i < 130_000; i += 10_000) evicting.push(yield* nanosOf(i))
      assert.strictEqual((yield* map.statistics).keysEvicted, 100_000)
      const [first, second] = [evicting.slice(0, 5), evicting.slice(5)].map((times) => Math.min(...times))
      assert.isBelow(second! / first!, 4)
    }))

  it.effect("a call without room for its key is a rejection event", () =>
    Effect.gen(function*() {
      const events: Array<Throttle.Event> = []
      const map = yield* mapOf(perHour, { maxKeys: 1, name: "hosts" })
      yield* map.withPermit("a")(Effect.void)
      yield* Effect.exit(map.withPermit("b")(Effect.void)).pipe(
        Effect.provideService(Throttle.Observer, (event) => Effect.sync(() => void events.push(event)))
      )
      assert.deepStrictEqual(events.map(({ _tag, throttle }) => [_tag, throttle]), [["Rejected", "hosts"]])
      const refused = Metric.withAttributes(Throttle.metrics.rejected, { throttle: "hosts", reason: "KeysExhausted" })
      assert.strictEqual((yield* Metric.value(refused)).count, 1)
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())))

  const many = Array.from({ length: 20_000 }, (_, i) => `stranger ${i}`)

  it.effect("maxKeys rejects calls of new keys, and admits calls of known keys", () =>
    Effect.gen(function*() {
      const map = yield* mapOf(Throttle.rate({ limit: 1, per: "1 hour", burst: 1 }), { maxKeys: 100 })
      yield* map.withPermit("known")(Effect.void)
      let refused = 0
      for (const key of many) {
        const exit = yield* Effect.exit(map.withPermit(key)(Effect.void))
        if (reasonOf(exit) === "KeysExhausted") refused++
      }
      assert.strictEqual(refused, many.length - 99)
      yield* map.withPermit("known")(Effect.void)
      // Whoever only asks needs no room.
      assert.deepStrictEqual(yield* map.estimateWait("new"), Option.some(Duration.zero))
      assert.strictEqual((yield* map.statisticsOf("new")).admitted, 0)
      for (const use of [map.wait("new"), map.pause("new", 1), map.withPermits("new", 2)(Effect.void)]) {
        const error = yield* Effect.flip(use)
        assert.strictEqual(
          error.message,
          `KeysExhausted: throttle "throttleMap": no room for another key, maxKeys is 100`
        )
        assert.isUndefined(error.retryAfter)
      }
      assert.strictEqual((yield* map.statistics).keysRefused, refused + 3)
      yield* TestClock.adjust("3 hours")
      yield* map.withPermit("new")(Effect.void)
    }))

  it.effect("or evicts the idle one that was used longest ago", () =>
    Effect.gen(function*() {
      const map = yield* mapOf(Throttle.rate({ limit: 1, per: "1 hour" }), { maxKeys: 3, onFull: "evict" })
      const isNew = (key: string) => Effect.map(map.estimateWait(key), Option.exists(Duration.isZero))
      const twice = Throttle.rate({ limit: 1, per: "1 hour", burst: 1 })
      const busy = yield* mapOf(twice, { maxKeys: 3, onFull: "evict" })
      for (const key of ["a", "b", "c", "a", "d"]) yield* busy.withPermit(key)(Effect.void)
      assert.strictEqual((yield* busy.statistics).keys, 3)
      assert.strictEqual((yield* busy.statistics).keysEvicted, 1)
      assert.isFalse(Option.exists(yield* busy.estimateWait("a"), Duration.isZero))

      for (const key of many) {
        yield* map.withPermit(key)(Effect.void)
        assert.isAtMost((yield* map.statistics).keys, 3)
      }
      assert.isFalse(yield* isNew(many.at(-1)!))
      assert.isTrue(yield* isNew(many[0]!))
    }))

  it.effect("keys in use are never evicted", () =>
    Effect.gen(function*() {
      const map = yield* mapOf(Throttle.concurrency({ limit: 1 }), { maxKeys: 2, onFull: "evict" })
      const hold = (key: string) => Effect.forkChild(map.withPermit(key)(Effect.never), { startImmediately: true })
      const [a] = [yield* hold("a"), yield* hold("b")]
      assert.strictEqual(reasonOf(yield* Effect.exit(map.withPermit("c")(Effect.void))), "KeysExhausted")
      yield* Fiber.interrupt(a)
      yield* map.withPermit("c")(Effect.void)
      assert.isTrue(Option.isNone(yield* map.withPermitsIfAvailable("b", 1)(Effect.void)))
    }))

  it.live("an idle key of one timing part takes at most 250 bytes beyond its key", () =>
    Effect.gen(function*() {
      const count = 100_000
      const keys = Array.from({ length: count }, (_, i) => `key ${i}`)
      const policies = [
        Throttle.rate({ limit: 1, per: "1 day" }),
        Throttle.window({ limit: 1, per: "1 day" }),
        Throttle.spacing({ interval: "1 day" })
      ]
      // Once a cost is beyond small integers, V8 keeps the two costs of a window's state outside of it, 16 bytes each.
      // Other files of this process have had such costs.
      const most = 250 + 2 * 16
      for (const policy of policies) {
        yield* Effect.scoped(Effect.gen(function*() {
          const map = yield* mapOf(policy)
          yield* map.withPermit("first")(Effect.void)
          const before = yield* heapUsed
          for (const key of keys) yield* map.withPermit(key)(Effect.void)
          const bytes = ((yield* heapUsed) - before) / count
          assert.isAbove(bytes, 50)
          assert.isAtMost(bytes, most, Throttle.describe(policy))
          assert.strictEqual((yield* map.statistics).keys, count + 1)
        }))
      }
    }))
})

describe("at every scheduler step", () => {
  const uses: Record<
    string,
    (map: ThrottleMap.ThrottleMap<string>, key: string, self: Effect.Effect<void>) => Effect.Effect<unknown, unknown>
  > = {
    withPermit: (map, key, self) => map.withPermit(key)(self),
    withPermitsIfAvailable: (map, key, self) => map.withPermitsIfAvailable(key, 1)(self),
    takeScoped: (map, key, self) => Effect.scoped(Effect.andThen(map.takeScoped(key), self)),
    usePermits: (map, key, self) => map.usePermits(key, 1)((permit) => Effect.andThen(self, permit.settle(1)))
  }
  for (const [name, use] of Object.entries(uses)) {
    it(`${name}: a limiter is one key's for as long as that needs it`, () => {
      for (let step = Sweep.offset(); step < 250; step += Sweep.stride) {
        const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
        const running = new Map<string, number>()
        const simulator = Simulator.make({
          beforeStep: (current) => {
            if (current === step) { for (const fiber of fibers.slice(2, 5)) fiber.interruptUnsafe() }
          }
        })
        let map!: ThrottleMap.ThrottleMap<string>
        const scope = Scope.makeUnsafe()
        simulator.fork(Effect.map(Scope.provide(mapOf(Throttle.concurrency({ limit: 1 })), scope), (made) => {
          map = made
        }))
        simulator.run()
        const work = (key: string) => {
          const add = (amount: number) => running.set(key, (running.get(key) ?? 0) + amount)
          return Effect.acquireUseRelease(
            Effect.sync(() => {
              assert.strictEqual(add(1).get(key), 1, `two at once for ${key}, step ${step}`)
            }),
            () => Effect.sleep(1),
            () => Effect.sync(() => void add(-1))
          )
        }
        for (let i = 0; i < 8; i++) {
          const key = `key ${i % 3}`
          // Searches all the time, between any two steps of the others.
          simulator.fork(Effect.repeat(map.withPermit(`other ${i}`)(Effect.void), { times: 40 }))
          fibers.push(simulator.fork(use(map, key, work(key))))
        }
        simulator.run()
        for (const fiber of fibers) {
          const exit = fiber.pollUnsafe()
          assert.isDefined(exit, `${name}, step ${step}: hangs`)
          assert.isFalse(Exit.hasDies(exit!), `${name}, step ${step}: ${exit}`)
        }
        const { running: left, waiting } = Effect.runSync(map.statistics)
        assert.deepStrictEqual([left, waiting], [0, 0])
        simulator.fork(Effect.repeat(map.withPermit("last")(Effect.void), { times: 99 }))
        simulator.run()
        assert.isAtMost(Effect.runSync(map.statistics).keys, 1, `${name}, step ${step}: keys in use`)
      }
    })
  }
})

describe("a law", () => {
  const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
  const policies: ReadonlyArray<Throttle.Policy<any>> = [
    Throttle.rate({ limit: 100, burst: 2 }),
    Throttle.tokenBucket({ capacity: 3, refill: 200 }),
    Throttle.window({ limit: 3, per: "20 millis" }),
    Throttle.window({ limit: 3, per: "20 millis", kind: "fixed" }),
    Throttle.spacing({ interval: "7 millis" }),
    Throttle.spacing({ interval: "7 millis", from: "end" }),
    Throttle.spacing({ interval: "7 millis", align: true }),
    Throttle.concurrency({ limit: 3 }),
    Throttle.all([Throttle.rate({ limit: 200, burst: 3 }), Throttle.window({ limit: 4, per: "30 millis" })]),
    Throttle.all([Throttle.rate({ limit: 200, burst: 3 }), Throttle.concurrency({ limit: 3 })], { maxQueue: 2 }),
    Throttle.shadow(Throttle.rate({ limit: 100, maxQueue: 1 }))
  ]
  const Program = Schema.Struct({
    policy: int(0, policies.length - 1),
    calls: Schema.Array(
      Schema.Struct({ at: int(0, 200), key: int(0, 4), runs: int(0, 10), cost: int(0, 3), interrupted: int(0, 4) })
    ).check(Schema.isMaxLength(40))
  })

  type Wrap = (key: number, cost: number) => (self: Effect.Effect<void>) => Effect.Effect<void, any>

  /** What becomes of each call, and all counts. */
  const play = (
    program: typeof Program.Type,
    build: (policy: Throttle.Policy<any>) => Effect.Effect<
      { readonly wrap: Wrap; readonly counts: Effect.Effect<ReadonlyArray<number>> },
      never,
      Scope.Scope
    >
  ) => {
    const simulator = Simulator.make({ operations: 2_048 })
    let built!: { readonly wrap: Wrap; readonly counts: Effect.Effect<ReadonlyArray<number>> }
    simulator.fork(Effect.map(Scope.provide(build(policies[program.policy]!), Scope.makeUnsafe()), (all) => {
      built = all
    }))
    simulator.run()
    const seen = program.calls.map((): { start?: number; end?: string } => ({}))
    program.calls.forEach(({ at, cost, interrupted, key, runs }, i) => {
      simulator.at(at, () => {
        const fiber = simulator.fork(
          built.wrap(key, cost)(Effect.suspend(() => {
            seen[i]!.start = simulator.now()
            return Effect.sleep(runs)
          }))
        )
        fiber.addObserver((exit) => {
          seen[i]!.end = Exit.isSuccess(exit) ? "done" : reasonOf(exit) ?? "interrupted"
        })
        if (interrupted === 0) simulator.at(at + 5, () => fiber.interruptUnsafe())
      })
    })
    simulator.run()
    return { seen, counts: Effect.runSync(built.counts) }
  }

  const countsOf = (all: ReadonlyArray<Throttle.Statistics>): ReadonlyArray<number> => {
    const sum = (f: (one: Throttle.Statistics) => number) => all.reduce((total, one) => total + f(one), 0)
    return [
      sum(({ admitted }) => admitted),
      sum(({ rejected }) => rejected.QueueFull),
      sum(({ interrupted }) => interrupted),
      sum(({ waiting }) => waiting),
      sum(({ running }) => running),
      Math.round(sum(({ waited }) => Duration.toMillis(waited)))
    ]
  }

  it.prop("a map acts as one throttle for each key that is never dropped", [Program], ([program]) => {
    const map = play(program, (policy) =>
      Effect.map(ThrottleMap.make<number>({ lookup: () => policy }), (map) => ({
        wrap: (key, cost) => (self) =>
          // Calls for other keys, so that idle ones are looked for all the time.
          Effect.andThen(
            Effect.repeat(map.withPermits(-1, 0)(Effect.void), { times: 20 }),
            map.withPermits(key, cost)(self)
          ),
        counts: Effect.map(map.statistics, (all) => countsOf([all]))
      })))
    const apart = play(
      program,
      (policy) =>
        Effect.map(Effect.forEach([0, 1, 2, 3, 4, 5], () => Throttle.make(policy)), (all) => ({
          wrap: (key, cost) => (self) =>
            Effect.andThen(
              Effect.repeat(all[5]!.withPermits(0)(Effect.void), { times: 20 }),
              all[key]!.withPermits(self, cost)
            ),
          counts: Effect.map(Effect.forEach(all, ({ statistics }) => statistics), countsOf)
        }))
    )
    assert.deepStrictEqual(map, apart)
  }, { arbitrary: { runs: 500 } })
})

describe("if available", () => {
  it.effect("a key that holds nothing has no claim to its place while the effect runs", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({
        lookup: (_key: string) => Throttle.rate({ limit: 1 }),
        maxKeys: 1,
        onFull: "evict"
      })
      const long = yield* Effect.forkChild(map.withPermitsIfAvailable("a", 1)(Effect.never), { startImmediately: true })
      assert.deepStrictEqual(yield* map.withPermitsIfAvailable("b", 1)(Effect.succeed("b")), Option.some("b"))
      assert.strictEqual((yield* map.statistics).keysEvicted, 1)
      yield* Fiber.interrupt(long)
    }))

  it.effect("a key that holds a permit keeps its place until the effect ends", () =>
    Effect.gen(function*() {
      const pool = Throttle.concurrency({ limit: 1 })
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => pool, maxKeys: 1, onFull: "evict" })
      const long = yield* Effect.forkChild(map.withPermitsIfAvailable("a", 1)(Effect.never), { startImmediately: true })
      const refused = yield* Effect.flip(map.withPermitsIfAvailable("b", 1)(Effect.void))
      assert.strictEqual(refused.reason._tag, "KeysExhausted")
      assert.deepStrictEqual(yield* map.withPermitsIfAvailable("a", 1)(Effect.void), Option.none())
      yield* Fiber.interrupt(long)
      assert.deepStrictEqual(yield* map.withPermitsIfAvailable("b", 1)(Effect.succeed("b")), Option.some("b"))
    }))
})

describe("lookup", () => {
  const free = Throttle.rate({ limit: 1 })
  const paid = Throttle.rate({ limit: 10, burst: 9 })

  it.effect("is called again at a key's call once nothing is spent", () =>
    Effect.gen(function*() {
      const paying = new Set<string>()
      const map = yield* ThrottleMap.make({ lookup: (user: string) => paying.has(user) ? paid : free })
      const burst = Effect.map(
        Effect.replicateEffect(map.withPermitsIfAvailable("ada", 1)(Effect.void), 12),
        (ran) => ran.filter(Option.isSome).length
      )
      assert.strictEqual(yield* burst, 1)
      paying.add("ada")
      yield* TestClock.adjust(500)
      assert.strictEqual(yield* burst, 0)
      yield* TestClock.adjust(500)
      assert.strictEqual(yield* burst, 10)
      paying.delete("ada")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* burst, 1)
    }))

  it.effect("is called again for a key that held permits or was paused, once that has ended", () =>
    Effect.gen(function*() {
      let limit = 1
      const pools = [1, 2, 3].map((limit) => Throttle.concurrency({ limit }))
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => pools[limit - 1]! })
      const most = Effect.gen(function*() {
        const fibers = yield* Effect.forEach(
          [1, 2, 3],
          () => Effect.forkChild(map.withPermitsIfAvailable("a", 1)(Effect.sleep(10)), { startImmediately: true })
        )
        yield* TestClock.adjust(10)
        return (yield* Effect.forEach(fibers, Fiber.join)).filter(Option.isSome).length
      })
      assert.strictEqual(yield* most, 1)
      limit = 3
      assert.strictEqual(yield* most, 3)
      yield* map.pause("a", 100)
      limit = 2
      yield* TestClock.adjust(100)
      assert.strictEqual(yield* most, 2)
    }))

  it.effect("gives one active key its new plan, 3 calls a day for 100 days", () =>
    Effect.gen(function*() {
      let day = 0
      const perDay = Array.from({ length: 2 }, (_, i) => Throttle.window({ limit: 1 + 2 * i, per: "1 day" }))
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => perDay[day === 0 ? 0 : 1]! })
      let answered = 0
      for (; day < 100; day++) {
        for (let i = 0; i < 3; i++) {
          if (Option.isSome(yield* map.withPermitsIfAvailable("only", 1)(Effect.void))) answered++
        }
        yield* TestClock.adjust("1 day")
      }
      assert.strictEqual(answered, 1 + 99 * 3)
    }))
})

describe("the throttle of a key", () => {
  /** Each operation in each of its forms, and whether its effect ran. */
  const operations: Record<
    string,
    (throttle: Throttle.Throttle, run: Effect.Effect<void>) => Effect.Effect<unknown, unknown>
  > = {
    "withPermit(self)": (throttle, run) => throttle.withPermit(run),
    "withPermits(self, cost)": (throttle, run) => throttle.withPermits(run, 1),
    "withPermits(cost)(self)": (throttle, run) => run.pipe(throttle.withPermits({ permits: 1 })),
    "withPermitsIfAvailable(self, cost)": (throttle, run) => throttle.withPermitsIfAvailable(run, 1),
    "withPermitsIfAvailable(cost)(self)": (throttle, run) => run.pipe(throttle.withPermitsIfAvailable(1)),
    "usePermits(use, cost)": (throttle, run) => throttle.usePermits(() => run, 1),
    "usePermits(cost)(use)": (throttle, run) => throttle.usePermits(1)(() => run),
    takeScoped: (throttle, run) => Effect.scoped(Effect.andThen(throttle.takeScoped(), run)),
    wait: (throttle, run) => Effect.andThen(throttle.wait(), run)
  }

  it.effect.each(Object.entries(operations))(
    "%s is charged to the key alone",
    ([, operation]) =>
      Effect.gen(function*() {
        const map = yield* mapOf(Throttle.rate({ limit: 1, burst: 1 }))
        const a = map.get("a")
        let ran = 0
        const call = operation(a, Effect.sync(() => void ran++))
        yield* call
        yield* call
        assert.strictEqual(ran, 2)
        for (const throttle of [a, map.get("a")]) {
          assert.deepStrictEqual(yield* throttle.estimateWait(), Option.some(Duration.seconds(1)))
        }
        assert.deepStrictEqual(yield* map.estimateWait("a"), Option.some(Duration.seconds(1)))
        assert.deepStrictEqual(yield* map.get("b").estimateWait(), Option.some(Duration.zero))
        assert.strictEqual((yield* map.statistics).admitted, 2)
      })
  )

  it.effect("waits in the same queue as the operations of the map", () =>
    Effect.gen(function*() {
      const map = yield* mapOf(Throttle.concurrency({ limit: 1 }))
      const order: Array<number> = []
      const body = (i: number) => Effect.andThen(Effect.sync(() => void order.push(i)), Effect.sleep(10))
      const a = map.get("a")
      yield* fork(map.withPermit("a")(body(1)))
      yield* fork(a.withPermit(body(2)))
      yield* fork(map.withPermit("a")(body(3)))
      yield* fork(map.get("a").withPermits(body(4), 1))
      const { running, waiting } = yield* a.statistics
      assert.deepStrictEqual({ running, waiting }, { running: 1, waiting: 3 })
      assert.deepStrictEqual(inMillis(yield* a.statistics), inMillis(yield* map.statisticsOf("a")))
      yield* TestClock.adjust(40)
      assert.deepStrictEqual(order, [1, 2, 3, 4])
    }))

  it.effect("settles and cancels permits of the key", () =>
    Effect.gen(function*() {
      const map = yield* mapOf(Throttle.tokenBucket({ capacity: 10, refill: 1 }))
      const a = map.get("a")
      yield* a.usePermits((permit) => permit.settle(2), 10)
      assert.deepStrictEqual(yield* map.estimateWait("a", 8), Option.some(Duration.zero))
      yield* a.usePermits(8)((permit) => permit.cancel)
      assert.deepStrictEqual(yield* map.estimateWait("a", 8), Option.some(Duration.zero))
    }))

  it.effect("updates the policy of the key; what is spent stays spent", () =>
    Effect.gen(function*() {
      const map = yield* mapOf(perSecond)
      const a = map.get("a")
      yield* Effect.forEach(["a", "b"], (key) => map.wait(key))
      yield* a.update(Throttle.rate({ limit: 10 }))
      const waits = yield* Effect.forEach(["a", "b"], (key) => map.get(key).estimateWait())
      assert.deepStrictEqual(waits.map(Option.map(Duration.toMillis)), [Option.some(100), Option.some(1_000)])
      assert.isTrue(Exit.hasDies(yield* Effect.exit(a.update({ limit: 1 } as any))))
    }))

  it.effect("pauses and resumes the key alone", () =>
    Effect.gen(function*() {
      const map = yield* mapOf(Throttle.none)
      const a = map.get("a")
      yield* a.pause("1 hour")
      assert.deepStrictEqual(yield* a.withPermitsIfAvailable(Effect.void, 1), Option.none())
      assert.isTrue(Option.isSome(yield* map.get("b").withPermitsIfAvailable(Effect.void, 1)))
      yield* map.resume("a")
      assert.isTrue(Option.isSome(yield* a.withPermitsIfAvailable(Effect.void, 1)))
      assert.isTrue(Exit.hasDies(yield* Effect.exit(a.pause(-1))))
    }))

  it.effect("a pause has no effect where the map has no room for the key; the map's own pause fails", () =>
    Effect.gen(function*() {
      const map = yield* mapOf(Throttle.concurrency({ limit: 1 }), { maxKeys: 1 })
      const holder = yield* fork(map.withPermit("a")(Effect.never))
      const b = map.get("b")
      yield* b.pause("1 hour")
      assert.strictEqual(reasonOf(yield* Effect.exit(map.pause("b", "1 hour"))), "KeysExhausted")
      assert.strictEqual(reasonOf(yield* Effect.exit(b.withPermit(Effect.void))), "KeysExhausted")
      yield* Fiber.interrupt(holder)
      assert.isTrue(Option.isSome(yield* b.withPermitsIfAvailable(Effect.void, 1)), "the pause came later")
    }))

  it.effect("keeps no key in the map, and can be used after the key was dropped", () =>
    Effect.gen(function*() {
      const map = yield* mapOf(perSecond)
      const a = map.get("a")
      assert.strictEqual((yield* map.statistics).keys, 0)
      yield* a.wait()
      assert.strictEqual((yield* map.statistics).keys, 1)
      yield* TestClock.adjust("1 second")
      yield* look(map, 200)
      assert.isAtMost((yield* map.statistics).keys, 1, "the key that looks may stay")
      yield* a.wait()
      assert.deepStrictEqual(yield* map.estimateWait("a"), Option.some(Duration.seconds(1)))
    }))

  it.effect("calls lookup for the current policy of the key", () =>
    Effect.gen(function*() {
      let limit = 1
      const [one, ten] = [perSecond, Throttle.rate({ limit: 10 })]
      const map = yield* ThrottleMap.make<string>({ lookup: () => limit === 1 ? one : ten })
      const a = map.get("a")
      yield* a.wait()
      yield* TestClock.adjust("1 second")
      limit = 10
      yield* a.wait()
      assert.deepStrictEqual(yield* a.estimateWait(), Option.some(Duration.millis(100)))
    }))

  it.effect("can be provided as the Throttle service", () =>
    Effect.gen(function*() {
      const map = yield* mapOf(perSecond)
      yield* Throttle.withPermit(Effect.void).pipe(Effect.provideService(Throttle.Throttle, map.get("a")))
      assert.deepStrictEqual(yield* map.estimateWait("a"), Option.some(Duration.seconds(1)))
    }))

  it.effect("interrupts its calls once the map is closed", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const a = (yield* Scope.provide(mapOf(perSecond), scope)).get("a")
      yield* a.wait()
      const waiting = yield* fork(a.wait())
      yield* Scope.close(scope, Exit.void)
      for (const exit of [yield* Fiber.await(waiting), yield* Fiber.await(yield* fork(a.wait()))]) {
        assert.isTrue(Exit.hasInterrupts(exit))
      }
    }))
})

describe("update of a key", () => {
  const free = Throttle.rate({ limit: 1 })
  const paid = Throttle.rate({ limit: 10 })

  it.effect("gives it other limits at once, what is spent stays spent", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_user: string) => free })
      yield* map.wait("ada")
      yield* map.wait("bob")
      yield* map.update("ada", paid)
      const waits = yield* Effect.forEach(["ada", "bob"], (key) => map.estimateWait(key))
      assert.deepStrictEqual(waits.map(Option.map(Duration.toMillis)), [Option.some(100), Option.some(1_000)])
      // Once nothing is spent, lookup decides again.
      yield* TestClock.adjust(100)
      yield* map.wait("ada")
      assert.deepStrictEqual(yield* map.estimateWait("ada"), Option.some(Duration.seconds(1)))
    }))

  it.effect("lets waiting calls of the key start at once", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => Throttle.concurrency({ limit: 1 }) })
      const fibers = yield* Effect.forEach([1, 2, 3], () =>
        Effect.forkChild(map.withPermit("a")(Effect.never), { startImmediately: true }))
      yield* map.update("a", Throttle.concurrency({ limit: 2 }))
      yield* TestClock.adjust(0)
      const { running, waiting } = yield* map.statistics
      assert.deepStrictEqual({ running, waiting }, { running: 2, waiting: 1 })
      yield* Fiber.interruptAll(fibers)
      assert.strictEqual((yield* map.statistics).running, 0)
    }))

  it.effect("does nothing for an unused key, and dies for what is not a policy", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => free })
      yield* map.update("new", paid)
      assert.strictEqual((yield* map.statistics).keys, 0)
      const exit = yield* Effect.exit(map.update("new", { limit: 1 } as any))
      assert.isTrue(Exit.hasDies(exit))
    }))
})

describe("keys that are not plain values", () => {
  class Caller extends Data.Class<{ readonly tenant: string; readonly region: number }> {}
  const hourly = Throttle.rate({ limit: 1, per: "1 hour" })

  it.effect("are one key where they are equal", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: Caller) => hourly })
      let started = 0
      for (let i = 0; i < 1_000; i++) {
        const ran = yield* map.withPermitsIfAvailable(new Caller({ tenant: "acme", region: 1 }), 1)(Effect.void)
        if (Option.isSome(ran)) started++
      }
      assert.strictEqual(started, 1)
      assert.strictEqual((yield* map.statistics).keys, 1)
      assert.isTrue(
        Option.isSome(yield* map.withPermitsIfAvailable(new Caller({ tenant: "acme", region: 2 }), 1)(Effect.void))
      )
    }))

  it.effect("wait, hold, pause and are updated under any of their equals, and leave nothing", () =>
    Effect.gen(function*() {
      const pool = Throttle.concurrency({ limit: 1 })
      const map = yield* ThrottleMap.make({ lookup: (_key: Caller) => pool })
      const key = () => new Caller({ tenant: "acme", region: 1 })
      const fibers = yield* Effect.forEach(
        [1, 2],
        () => Effect.forkChild(map.withPermit(key())(Effect.sleep(10)), { startImmediately: true })
      )
      assert.deepInclude(yield* map.statisticsOf(key()), { running: 1, waiting: 1 })
      yield* map.update(key(), Throttle.concurrency({ limit: 2 }))
      yield* TestClock.adjust(0)
      assert.strictEqual((yield* map.statistics).running, 2)
      yield* TestClock.adjust(10)
      yield* Effect.forEach(fibers, Fiber.join)
      yield* map.pause(key(), "1 hour")
      assert.deepStrictEqual(yield* map.withPermitsIfAvailable(key(), 1)(Effect.void), Option.none())
      yield* map.resume(key())
      assert.isTrue(Option.isSome(yield* map.withPermitsIfAvailable(key(), 1)(Effect.void)))
      assert.strictEqual((yield* map.statistics).keys, 0)
    }))

  it.effect("are evicted and forgotten like others", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({
        lookup: (_key: readonly [string, number]) => hourly,
        maxKeys: 10,
        onFull: "evict"
      })
      for (let i = 0; i < 100; i++) yield* map.withPermit(["a", i])(Effect.void)
      assert.deepInclude(yield* map.statistics, { keys: 10, keysEvicted: 90 })
      assert.deepStrictEqual(yield* map.withPermitsIfAvailable(["a", 99], 1)(Effect.void), Option.none())
      assert.isTrue(Option.isSome(yield* map.withPermitsIfAvailable(["a", 0], 1)(Effect.void)))
    }))
})
