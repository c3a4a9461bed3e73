/**
 * Levels: a call that several throttles must admit, all or none, at one instant.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, type Fiber, Option } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { MemoryStore, RedisThrottle } from "effect-throttle/redis"
import { TestClock } from "effect/testing"
import { assertIdle, estimateOf, fork, now, rangeErrorOf, reasonOf, throttleErrorOf, throttleIn } from "./utils/kit.ts"
import { randomNumbers } from "./utils/random-program.ts"
import * as Simulator from "./utils/simulator.ts"
import * as Sweep from "./utils/sweep.ts"
import { collect } from "./utils/telemetry.ts"

const admittedOf = (...throttles: ReadonlyArray<Throttle.Throttle>) =>
  Effect.forEach(throttles, ({ statistics }) => Effect.map(statistics, ({ admitted }) => admitted))

const noted = () => {
  const started: Array<readonly [name: string, at: number]> = []
  const note = (name: string, runs = 0) =>
    Effect.flatMap(now, (at) => {
      started.push([name, Math.round(at)])
      return runs === 0 ? Effect.void : Effect.sleep(runs)
    })
  return { note, started }
}

describe("all or none", () => {
  it.effect("a call is charged by every level when it starts, and by none before", () =>
    Effect.gen(function*() {
      const narrow = yield* Throttle.make(Throttle.rate({ limit: 10 }))
      const wide = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      const both = Throttle.levels([narrow, wide])
      const { note, started } = noted()
      yield* both.withPermit(note("first"))
      yield* fork(both.withPermit(note("second")))
      yield* TestClock.adjust("999 millis")
      assert.deepStrictEqual(yield* admittedOf(narrow, wide), [1, 1])
      assert.deepStrictEqual((yield* narrow.remaining)[0]!.remaining, 0) // a call waits there
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(started, [["first", 0], ["second", 1_000]])
      assert.deepStrictEqual(yield* admittedOf(narrow, wide), [2, 2])
      // The narrow one is charged when the call starts, not when it was ready there.
      assert.strictEqual(yield* estimateOf(narrow), 100)
      assertIdle(narrow, "narrow")
      assertIdle(wide, "wide")
    }))

  it.effect("a call that the widest level rejects is charged by none", () =>
    Effect.gen(function*() {
      const narrow = yield* Throttle.make(Throttle.window({ limit: 5, per: "1 day" }))
      const wide = yield* Throttle.make(Throttle.rate({ limit: 1, maxQueue: 0, name: "everybody" }))
      const both = Throttle.levels([narrow, wide])
      yield* both.withPermit(Effect.void)
      const { reason } = throttleErrorOf(yield* Effect.exit(both.withPermit(Effect.void)))
      assert.deepStrictEqual([reason._tag, reason.throttle], ["QueueFull", "everybody"])
      assert.strictEqual((yield* narrow.remaining)[0]!.remaining, 4)
      assertIdle(narrow, "narrow")
    }))

  it.effect("permits are held at every level until the end", () =>
    Effect.gen(function*() {
      const narrow = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      const wide = yield* Throttle.make(Throttle.concurrency({ limit: 5 }))
      const both = Throttle.levels([narrow, wide])
      const { note, started } = noted()
      for (const name of ["a", "b", "c"]) yield* fork(both.withPermits(note(name, 100), 1))
      assert.deepStrictEqual((yield* wide.statistics).running, 1)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(started, [["a", 0], ["b", 100], ["c", 200]])
      assertIdle(narrow, "narrow")
      assertIdle(wide, "wide")
    }))

  it.effect("settle and cancel apply to every level", () =>
    Effect.gen(function*() {
      const narrow = yield* Throttle.make(Throttle.window({ limit: 10, per: "1 day" }))
      const wide = yield* Throttle.make(Throttle.window({ limit: 100, per: "1 day", unit: "tokens" }))
      const both = Throttle.levels([narrow, wide])
      yield* both.usePermits({ permits: 4, tokens: 50 })((permit) => permit.settle({ tokens: 20 }))
      yield* both.usePermits({ permits: 4, tokens: 50 })((permit) => permit.cancel)
      yield* Effect.scoped(Effect.flatMap(both.takeScoped({ tokens: 10 }), (permit) => permit.settle({ tokens: 30 })))
      assert.deepStrictEqual((yield* both.remaining).map(({ remaining }) => remaining), [5, 50])
      assertIdle(narrow, "narrow")
      assertIdle(wide, "wide")
    }))
})

describe("waits", () => {
  it.effect("a call that its own user's limit holds back does not hold back other users", () =>
    Effect.scoped(Effect.gen(function*() {
      const users = yield* ThrottleMap.make({ lookup: () => Throttle.rate({ limit: 1 }) })
      const everybody = yield* Throttle.make(Throttle.rate({ limit: 10 }))
      const { note, started } = noted()
      const call = (user: string) => fork(Throttle.levels([users.get(user), everybody]).withPermit(note(user)))
      for (let i = 0; i < 3; i++) yield* call("ada")
      yield* call("grace")
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(started, [["ada", 0], ["grace", 100], ["ada", 1_000], ["ada", 2_000]])
      assertIdle(everybody, "everybody")
      assert.deepInclude(yield* users.statistics, { waiting: 0, admitted: 4 })
    })))

  it.effect("each level at which a call has to wait has its event and span, with the pauses of that level", () =>
    Effect.gen(function*() {
      const user = yield* Throttle.make(Throttle.rate({ limit: 1, name: "user" }))
      const team = yield* Throttle.make(Throttle.rate({ limit: 100, burst: 10, name: "team" }))
      const all = yield* Throttle.make(Throttle.rate({ limit: 1, per: "4 seconds", name: "all" }))
      const limits = Throttle.levels([user, team, all])
      const events: Array<Throttle.Event> = []
      const { in: traced, spans } = collect()
      yield* limits.withPermit(Effect.void)
      yield* user.pause("500 millis")
      yield* all.pause("100 millis")
      yield* limits.withPermit(Effect.void).pipe(
        traced,
        Effect.provideService(Throttle.Observer, (event) => Effect.sync(() => void events.push(event))),
        Effect.forkChild({ startImmediately: true })
      )
      yield* TestClock.adjust("2 seconds")
      yield* all.pause("1 second")
      yield* TestClock.adjust("2 seconds")
      const common = { policy: undefined, cost: 1 }
      assert.deepStrictEqual(events.map((event) => ({ ...event, policy: undefined })) as Array<object>, [
        { ...common, _tag: "Waiting", throttle: "user", queued: 1, expected: 1_000, paused: 500 },
        { ...common, _tag: "Waiting", throttle: "all", queued: 1, expected: 3_000 },
        { ...common, _tag: "Admitted", throttle: "all", waited: 4_000, paused: 1_000 }
      ])
      assert.deepStrictEqual(
        spans.map(({ attributes }) => ["throttle", "waited", "paused"].map((name) => attributes.get(name))),
        [["user", 1_000, 500], ["all", 4_000, 1_000]]
      )
    }))

  it.effect("calls of one level start in order of arrival, those of a plain call of the wide one too", () =>
    Effect.gen(function*() {
      const narrow = yield* Throttle.make(Throttle.rate({ limit: 10, burst: 9 }))
      const wide = yield* Throttle.make(Throttle.rate({ limit: 10 }))
      const both = Throttle.levels([narrow, wide])
      const { note, started } = noted()
      yield* fork(both.withPermit(note("a")))
      yield* fork(both.withPermit(note("b")))
      yield* fork(wide.withPermit(note("plain")))
      yield* fork(both.withPermit(note("c")))
      yield* TestClock.adjust("1 second")
      // c keeps its user's place behind b, and enters the wide queue when it is first in its own.
      assert.deepStrictEqual(started.map(([name]) => name), ["a", "b", "plain", "c"])
    }))

  it.effect("a pause of a level that was ready sends the call back: it leaves the wider queue", () =>
    Effect.gen(function*() {
      const narrow = yield* Throttle.make(Throttle.rate({ limit: 10 }))
      const wide = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      const both = Throttle.levels([narrow, wide])
      const { note, started } = noted()
      yield* both.withPermit(note("first"))
      yield* TestClock.adjust("500 millis")
      yield* fork(both.withPermit(note("second")))
      yield* narrow.pause("5 seconds")
      yield* fork(Effect.delay(wide.withPermit(note("plain")), "100 millis"))
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(started, [["first", 0], ["plain", 1_000], ["second", 5_500]])
      assertIdle(narrow, "narrow")
      assertIdle(wide, "wide")
    }))

  it.effect("a timeout of the narrow level ends a wait at the wide one", () =>
    Effect.gen(function*() {
      const narrow = yield* Throttle.make(Throttle.rate({ limit: 10, timeout: "300 millis" }))
      const wide = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      const both = Throttle.levels([narrow, wide])
      yield* both.withPermit(Effect.void)
      const second = yield* fork(both.withPermit(Effect.void))
      yield* TestClock.adjust("299 millis")
      assert.isUndefined(second.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(reasonOf(second.pollUnsafe()), "TimedOut")
      assertIdle(narrow, "narrow")
      assertIdle(wide, "wide")
    }))

  it.effect("an interrupted call leaves every queue, and is charged by none", () =>
    Effect.gen(function*() {
      const levels = yield* Effect.forEach([5, 4, 1], (limit) => Throttle.make(Throttle.rate({ limit })))
      const all = Throttle.levels(levels)
      yield* all.withPermit(Effect.void)
      const { note, started } = noted()
      const second = yield* fork(all.withPermit(note("second")))
      yield* fork(all.withPermit(note("third")))
      yield* TestClock.adjust("300 millis")
      second.interruptUnsafe()
      yield* TestClock.adjust("700 millis")
      assert.deepStrictEqual(started, [["third", 1_000]])
      assert.deepStrictEqual(yield* admittedOf(...levels), [2, 2, 2])
      for (const level of levels) assertIdle(level, "a level")
    }))

  it.effect("orders of levels are kept: an urgent call is first at each", () =>
    Effect.gen(function*() {
      const policy = Throttle.rate({ limit: 10, order: "priority", ageing: "1 minute" })
      const narrow = yield* Throttle.make(policy)
      const wide = yield* Throttle.make(policy)
      const { note, started } = noted()
      const call = (name: string, priority = 0) =>
        fork(Throttle.levels([narrow, wide]).withPermit(note(name)).pipe(Throttle.withCaller({ priority })))
      for (const name of ["a", "b", "c"]) yield* call(name)
      yield* call("urgent", 1)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(started.map(([name]) => name), ["a", "urgent", "b", "c"])
    }))

  it.effect("a level in shadow holds back no call, and counts it", () =>
    Effect.gen(function*() {
      const narrow = yield* Throttle.make(Throttle.shadow(Throttle.rate({ limit: 1 })))
      const wide = yield* Throttle.make(Throttle.rate({ limit: 10 }))
      const both = Throttle.levels([narrow, wide])
      const { note, started } = noted()
      for (const name of ["a", "b", "c"]) yield* fork(both.withPermit(note(name)))
      yield* TestClock.adjust("200 millis")
      assert.deepStrictEqual(started, [["a", 0], ["b", 100], ["c", 200]])
      yield* narrow.update(Throttle.rate({ limit: 1 }))
      yield* fork(both.withPermit(note("d")))
      yield* TestClock.adjust("2 seconds")
      assert.isAtLeast(started[3]![1], 1_000)
      assertIdle(wide, "wide")
    }))

  it.effect("closing a level interrupts the calls that wait at another", () =>
    Effect.gen(function*() {
      const wide = yield* Throttle.make(Throttle.rate({ limit: 1, per: "1 hour" }))
      const fiber = yield* Effect.scoped(Effect.gen(function*() {
        const narrow = yield* Throttle.make(Throttle.rate({ limit: 10 }))
        const both = Throttle.levels([narrow, wide])
        yield* both.withPermit(Effect.void)
        return yield* fork(both.withPermit(Effect.void))
      }))
      yield* TestClock.adjust(0)
      assert.isTrue(Exit.hasInterrupts(fiber.pollUnsafe()!))
      assertIdle(wide, "wide")
    }))
})

describe("operations", () => {
  it.effect("withPermitsIfAvailable, allow, wait, estimateWait", () =>
    Effect.gen(function*() {
      const narrow = yield* Throttle.make(Throttle.rate({ limit: 10, burst: 1 }))
      const wide = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      const both = Throttle.levels([narrow, wide])
      assert.isTrue(yield* both.allow())
      assert.isFalse(yield* both.allow())
      assert.deepStrictEqual(yield* both.withPermitsIfAvailable(Effect.void, 1), Option.none())
      assert.deepStrictEqual(yield* admittedOf(narrow, wide), [1, 1])
      assert.strictEqual(yield* estimateOf(both as Throttle.Throttle), 1_000)
      const waiting = yield* fork(both.wait())
      yield* TestClock.adjust("1 second")
      assert.isDefined(waiting.pollUnsafe())
    }))

  it.effect("a cost that a level can never grant fails with that level's name", () =>
    Effect.gen(function*() {
      const narrow = yield* Throttle.make(Throttle.rate({ limit: 10, burst: 4 }))
      const wide = yield* Throttle.make(Throttle.rate({ limit: 10, name: "everybody" }))
      const { reason } = throttleErrorOf(
        yield* Effect.exit(Throttle.levels([narrow, wide]).withPermits(Effect.void, 3))
      )
      assert.deepStrictEqual([reason._tag, reason.throttle], ["PermitsExceedCapacity", "everybody"])
    }))

  it.effect("errors of use", () =>
    Effect.scoped(Effect.gen(function*() {
      const rate = yield* Throttle.make(Throttle.rate({ limit: 10 }))
      const shared = yield* RedisThrottle.make(Throttle.rate({ limit: 1 }), { key: "test" })
      assert.throws(() => Throttle.levels([]), RangeError, "at least one throttle")
      assert.throws(() => Throttle.levels([rate, shared]), RangeError, "a throttle of this process")
      assert.throws(() => Throttle.levels([1 as never]), RangeError, "a throttle")
      assert.include(
        rangeErrorOf(yield* Effect.exit(Throttle.levels([rate, rate]).withPermit(Effect.void))),
        "another throttle"
      )
      assert.include(
        rangeErrorOf(yield* Effect.exit(Throttle.levels([rate]).withPermits(Effect.void, { tokens: 1 }))),
        "unknown unit"
      )
      const held = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      assert.include(rangeErrorOf(yield* Effect.exit(Throttle.levels([rate, held]).wait())), "holds no permits")
    })).pipe(Effect.provide(MemoryStore.layer)))

  it.effect("a map without room for a key rejects, and charges no other level", () =>
    Effect.scoped(Effect.gen(function*() {
      const users = yield* ThrottleMap.make({
        lookup: () => Throttle.window({ limit: 1, per: "1 day" }),
        maxKeys: 1
      })
      const everybody = yield* Throttle.make(Throttle.rate({ limit: 10 }))
      const call = (user: string) => Throttle.levels([users.get(user), everybody]).withPermit(Effect.void)
      yield* call("a")
      assert.strictEqual(reasonOf(yield* Effect.exit(call("b"))), "KeysExhausted")
      assert.deepStrictEqual(yield* admittedOf(everybody), [1])
    })))
})

// ---------------------------------------------------------------------------------------------------------------------
// At every scheduler step
// ---------------------------------------------------------------------------------------------------------------------

const policies: Record<string, ReadonlyArray<Throttle.Policy<any>>> = {
  "two rates": [Throttle.rate({ limit: 500 }), Throttle.rate({ limit: 300 })],
  "permits, then a rate": [Throttle.concurrency({ limit: 2 }), Throttle.rate({ limit: 300 })],
  "a rate, then permits": [Throttle.rate({ limit: 900 }), Throttle.concurrency({ limit: 1 })],
  "three": [
    Throttle.rate({ limit: 900, burst: 1 }),
    Throttle.concurrency({ limit: 2, timeout: 50 }),
    Throttle.all([Throttle.spacing({ interval: 2, from: "end" }), Throttle.rate({ limit: 700 })])
  ],
  "fair, then priority": [
    Throttle.rate({ limit: 500, order: "fair" }),
    Throttle.concurrency({ limit: 1, order: "priority", ageing: "1 second" })
  ]
}

const uses: Record<string, (levels: Throttle.Levels, self: Effect.Effect<void>) => Effect.Effect<unknown, unknown>> = {
  withPermit: (levels, self) => levels.withPermit(self),
  takeScoped: (levels, self) => Effect.scoped(Effect.andThen(levels.takeScoped(), self)),
  cancel: (levels, self) => levels.usePermits(1)((permit) => Effect.andThen(self, permit.cancel))
}

describe("an interruption, an update or a pause at every scheduler step", () => {
  const actions: Record<
    string,
    (
      throttles: ReadonlyArray<Throttle.Throttle>,
      simulator: Simulator.Simulator,
      fibers: ReadonlyArray<Fiber.Fiber<any, any>>
    ) => void
  > = {
    "an interruption": (_, __, fibers) => fibers[1]!.interruptUnsafe(),
    "a pause of the first": ([first], simulator) => void simulator.fork(first!.pause(7)),
    "a pause of the last": (throttles, simulator) => void simulator.fork(throttles.at(-1)!.pause(7)),
    "an update": ([first], simulator) => void simulator.fork(first!.update(Throttle.rate({ limit: 400 }))),
    "a reset": ([first], simulator) => void simulator.fork(first!.reset)
  }
  for (const [name, all] of Object.entries(policies)) {
    for (const [way, use] of Object.entries(uses)) {
      for (const [what, act] of Object.entries(actions)) {
        it(`${name}, ${way}: ${what} leaves nothing behind`, () => {
          for (let step = Sweep.offset();; step += Sweep.stride) {
            let first = Infinity
            let hit = false
            const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
            const where = `${name}, ${way}, ${what}, step ${step}`
            const simulator = Simulator.make({
              limit: 100_000,
              beforeStep: (current) => {
                if (current !== first + step) return
                hit = true
                act(throttles, simulator, fibers)
              }
            })
            const throttles = all.map((policy) => throttleIn(simulator, policy))
            const levels = Throttle.levels(throttles)
            first = simulator.steps()
            for (let i = 0; i < 4; i++) {
              const call = use(levels, Effect.sleep(2)).pipe(Throttle.withCaller({ key: `${i % 2}`, priority: i % 3 }))
              fibers.push(simulator.fork(Effect.flatMap(Effect.yieldNow, () => call)))
            }
            // One that is not of all levels.
            fibers.push(simulator.fork(throttles.at(-1)!.withPermit(Effect.sleep(1))))
            simulator.run()
            for (const [i, fiber] of fibers.entries()) {
              const exit = fiber.pollUnsafe()
              assert.isDefined(exit, `${where}: call ${i} hangs`)
              assert.isFalse(Exit.hasDies(exit!), `${where}: call ${i}: ${exit}`)
              if (what !== "an interruption") assert.isFalse(Exit.hasInterrupts(exit!), where)
            }
            for (const throttle of throttles) assertIdle(throttle, where)
            assert.strictEqual(simulator.sleepers(), 0, where)
            if (!hit) break
          }
        })
      }
    }
  }
})

describe("random programs", () => {
  it("one level is the plain throttle", () => {
    for (let seed = 1; seed <= 60; seed++) {
      const next = randomNumbers(seed)
      const int = (n: number) => Math.floor(next() * n)
      const policy = [
        Throttle.rate({ limit: 100 + int(300), burst: int(3) }),
        Throttle.concurrency({ limit: 1 + int(3) }),
        Throttle.all([Throttle.rate({ limit: 200 }), Throttle.concurrency({ limit: 2 })]),
        Throttle.window({ limit: 1 + int(3), per: 5 + int(20) })
      ][int(4)]!
      const calls = Array.from(
        { length: 12 },
        () => ({ at: int(40), runs: int(9), interrupt: next() < 0.2 ? int(30) : -1 })
      )
      const startsWith = (view: (throttle: Throttle.Throttle) => Pick<Throttle.Throttle, "withPermit">) => {
        const simulator = Simulator.make()
        const throttle = throttleIn(simulator, policy)
        const starts: Array<number | undefined> = calls.map(() => undefined)
        for (const [i, { at, interrupt, runs }] of calls.entries()) {
          simulator.at(at, () => {
            const self = Effect.suspend(() => {
              starts[i] = simulator.now()
              return Effect.sleep(runs)
            })
            const fiber = simulator.fork(view(throttle).withPermit(self))
            if (interrupt >= 0) simulator.at(at + interrupt, () => fiber.interruptUnsafe())
          })
        }
        simulator.run()
        assertIdle(throttle, `seed ${seed}`)
        return starts
      }
      assert.deepStrictEqual(
        startsWith((throttle) => Throttle.levels([throttle])),
        startsWith((throttle) => throttle),
        `seed ${seed}`
      )
    }
  })

  it("each level keeps its law, nothing is lost, and no level idles while a call may start", () => {
    for (let seed = 1; seed <= 150; seed++) {
      const next = randomNumbers(seed)
      const int = (n: number) => Math.floor(next() * n)
      const simulator = Simulator.make({ limit: 200_000 })
      const everybody = throttleIn(
        simulator,
        Throttle.all([
          Throttle.rate({ limit: 200 + int(400) }),
          Throttle.concurrency({ limit: 2 + int(3) })
        ])
      )
      const limit = 1 + int(2)
      const organisations = [0, 1].map(() => throttleIn(simulator, Throttle.concurrency({ limit })))
      const users = [0, 1, 2, 3].map(() =>
        throttleIn(simulator, Throttle.rate({ limit: 50 + int(200), burst: int(2) }))
      )
      const running = [0, 0]
      const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
      for (let i = 0; i < 30; i++) {
        const user = int(4)
        const organisation = user % 2
        const runs = int(12)
        const at = int(80)
        const levels = Throttle.levels([users[user]!, organisations[organisation]!, everybody])
        const self = Effect.acquireUseRelease(
          Effect.sync(() => {
            running[organisation]!++
            assert.isAtMost(running[organisation]!, limit, `seed ${seed}`)
          }),
          () => Effect.sleep(runs),
          () => Effect.sync(() => void running[organisation]!--)
        )
        simulator.at(at, () => {
          const fiber = simulator.fork(levels.withPermit(self))
          fibers.push(fiber)
          if (next() < 0.2) simulator.at(at + int(40), () => fiber.interruptUnsafe())
        })
        if (next() < 0.1) simulator.at(at, () => void simulator.fork(users[int(4)]!.pause(int(20))))
      }
      simulator.run()
      for (const fiber of fibers) {
        const exit = fiber.pollUnsafe()
        assert.isDefined(exit, `seed ${seed}: hangs`)
        assert.isTrue(Exit.isSuccess(exit!) || Exit.hasInterrupts(exit!), `seed ${seed}: ${exit}`)
      }
      for (const throttle of [...users, ...organisations, everybody]) assertIdle(throttle, `seed ${seed}`)
    }
  })
})
