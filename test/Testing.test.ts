/**
 * The tests' own tools: waiting until calls wait or run, and the throttle that answers by a script.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Context, Duration, Effect, Exit, Fiber, Layer, Option, Scheduler, Scope } from "effect"
import { Throttle, ThrottleError } from "effect-throttle"
import * as Testing from "effect-throttle/testing"
import { TestClock } from "effect/testing"
import { expectTypeOf } from "vitest"
import { fork } from "./utils/kit.ts"

/** What an effect dies with, or the test fails. */
const defect = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.exit(self), (exit) => {
    assert.isTrue(Exit.isFailure(exit), `no failure: ${exit}`)
    const squashed = Cause.squash((exit as Exit.Failure<A, E>).cause)
    assert.isTrue(Cause.hasDies((exit as Exit.Failure<A, E>).cause), `no defect: ${exit}`)
    return squashed as Error
  })

const dies = <A, E, R>(self: Effect.Effect<A, E, R>, message: RegExp) =>
  Effect.map(defect(self), (error) => {
    assert.instanceOf(error, RangeError)
    assert.match(error.message, message)
  })

/** A call that needs the provided throttle. */
const call = Throttle.withPermit(Effect.void)

for (
  const [name, waitUntil, which] of [
    ["waitUntilWaiting", Testing.waitUntilWaiting, "waiting"],
    ["waitUntilRunning", Testing.waitUntilRunning, "running"]
  ] as const
) {
  describe(name, () => {
    /** Admits two calls; the others wait. Both numbers reach 2 once four calls have arrived. */
    const two = Throttle.concurrency({ limit: 2 })

    /** Does nothing so many times before it asks. */
    const late = (yields: number) =>
      Effect.andThen(Effect.replicateEffect(Effect.yieldNow, yields), Throttle.withPermit(Effect.never))

    it.effect("returns when there are as many, however late they come", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.Throttle
        yield* Effect.forEach([0, 5, 100, 1_000], (yields) => Effect.forkChild(late(yields)))
        yield* waitUntil(1)
        const first = yield* throttle.statistics
        assert.isAtLeast(first[which], 1)
        assert.isBelow(first.admitted + first.waiting, 4, "it does not wait for more than it was asked")
        yield* waitUntil(throttle, 2)
        assert.strictEqual((yield* throttle.statistics)[which], 2)
      }).pipe(Effect.provide(two)))

    it.effect("at once where so many do already, without a step for others", () =>
      Effect.gen(function*() {
        yield* Effect.forEach([1, 2, 3, 4], () => fork(Throttle.withPermit(Effect.never)))
        let others = 0
        yield* Effect.forkChild(Effect.sync(() => void others++))
        yield* waitUntil(2)
        yield* waitUntil(1)
        assert.strictEqual(others, 0)
      }).pipe(Effect.provide(two)))

    it.effect("of a Service class", () =>
      Effect.gen(function*() {
        class Database extends Throttle.Service<Database>()("app/Database", two) {}
        yield* Effect.gen(function*() {
          yield* Effect.forEach([1, 2, 3, 4], () => Effect.forkChild(Database.withPermit(Effect.never)))
          yield* waitUntil(Database, 2)
          assert.strictEqual((yield* Database.statistics)[which], 2)
        }).pipe(Effect.provide(Database.layer))
      }))

    it.effect("lets no time pass", () =>
      Effect.gen(function*() {
        yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(Throttle.withPermit(Effect.never)))
        yield* waitUntil(1)
        assert.strictEqual(yield* Clock.currentTimeMillis, 0)
      }).pipe(Effect.provide(two)))

    it.effect("dies with the number found and the number expected", () =>
      Effect.gen(function*() {
        yield* Effect.forEach([1, 2, 3, 4], () => Effect.forkChild(Throttle.withPermit(Effect.never)))
        const error = yield* defect(waitUntil(3))
        assert.instanceOf(error, Error)
        assert.strictEqual(
          error.message,
          `Testing.${name}: expected at least 3 ${which} calls, found 2 after 10000 yields ` +
            "(waiting 2, running 2, admitted 2)"
        )
      }).pipe(Effect.provide(two)))

    it.effect("can be interrupted", () =>
      Effect.gen(function*() {
        const fiber = yield* fork(waitUntil(1))
        yield* Fiber.interrupt(fiber)
        assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(fiber)))
      }).pipe(Effect.provide(two)))

    for (const n of [0, -1, 1.5, NaN, Infinity, "1", undefined, null, {}] as Array<any>) {
      it.effect(`dies with a RangeError for ${String(n)}`, () =>
        Effect.gen(function*() {
          const message = new RegExp(`^Testing.${name}: "n" must be an integer ≥ 1, received `)
          yield* dies(waitUntil(n), message)
          yield* dies(waitUntil(yield* Throttle.Throttle, n), message)
        }).pipe(Effect.provide(two)))
    }

    it("types: what is needed is the throttle that is watched", () => {
      class Database extends Throttle.Service<Database>()("app/Database", two) {}
      const throttle = {} as Throttle.Throttle
      expectTypeOf(waitUntil(1)).toEqualTypeOf<Effect.Effect<void, never, Throttle.Throttle>>()
      expectTypeOf(waitUntil(throttle, 1)).toEqualTypeOf<Effect.Effect<void>>()
      expectTypeOf(waitUntil(Database, 1)).toEqualTypeOf<Effect.Effect<void, never, Database>>()
      // @ts-expect-error n is missing
      waitUntil(throttle)
      // @ts-expect-error a number
      waitUntil("1")
    })
  })
}

// ---------------------------------------------------------------------------------------------------------------------
// The recorder
// ---------------------------------------------------------------------------------------------------------------------

type Method = Testing.Call["method"]

/** Every method that starts a call. Each returns "ran" where the call was admitted. */
const methods: Record<
  Method,
  (
    throttle: Throttle.Throttle,
    self: Effect.Effect<string>,
    cost: Throttle.Cost
  ) => Effect.Effect<string, ThrottleError>
> = {
  withPermit: (throttle, self) => throttle.withPermit(self),
  withPermits: (throttle, self, cost) => throttle.withPermits(self, cost),
  withPermitsIfAvailable: (throttle, self, cost) =>
    Effect.map(throttle.withPermitsIfAvailable(self, cost), Option.getOrElse(() => "none")),
  wait: (throttle, self, cost) => Effect.andThen(throttle.wait(cost), self),
  allow: (throttle, self, cost) =>
    Effect.flatMap(throttle.allow(cost), (isAllowed) => isAllowed ? self : Effect.succeed("none")),
  takeScoped: (throttle, self, cost) => Effect.scoped(Effect.andThen(throttle.takeScoped(cost), self)),
  usePermits: (throttle, self, cost) => throttle.usePermits(() => self, cost)
}

const everyMethod = Object.entries(methods) as Array<[Method, (typeof methods)[Method]]>
const waiting = everyMethod.filter(([method]) => method !== "withPermitsIfAvailable" && method !== "allow")

const idle: Throttle.Statistics = {
  admitted: 0,
  rejected: { QueueFull: 0, WaitTooLong: 0, TimedOut: 0, PermitsExceedCapacity: 0, Draining: 0 },
  interrupted: 0,
  waiting: 0,
  running: 0,
  waited: Duration.zero,
  longestWait: Duration.zero
}

const ran = Effect.succeed("ran")

describe("a recorder", () => {
  for (const [method, ask] of everyMethod) {
    const cost = method === "withPermit" ? 1 : { tokens: 5, permits: 2 }
    const isHolding = method !== "wait" && method !== "allow"

    describe(method, () => {
      it.effect("admit: runs, and is recorded", () =>
        Effect.gen(function*() {
          const { asked, throttle } = yield* Testing.make()
          const running = ask(throttle, Effect.map(throttle.statistics, ({ running }) => String(running)), cost)
          assert.strictEqual(yield* running, isHolding ? "1" : "0")
          assert.deepStrictEqual(yield* asked, [{ method, cost, outcome: "admitted" }])
          assert.deepStrictEqual(yield* throttle.statistics, { ...idle, admitted: 1 })
        }))

      it.effect("releases after a failure, a defect and an interruption", () =>
        Effect.gen(function*() {
          const { asked, throttle } = yield* Testing.make()
          assert.deepStrictEqual<unknown>(
            yield* Effect.exit(ask(throttle, Effect.fail("no" as never), cost)),
            Exit.fail("no")
          )
          assert.strictEqual(yield* defect(ask(throttle, Effect.die("bug"), cost)), "bug" as any)
          const fiber = yield* fork(ask(throttle, Effect.never, cost))
          assert.strictEqual((yield* throttle.statistics).running, isHolding ? 1 : 0)
          yield* Fiber.interrupt(fiber)
          assert.deepStrictEqual(yield* throttle.statistics, { ...idle, admitted: 3 })
          assert.deepStrictEqual((yield* asked).map((asked) => "outcome" in asked && asked.outcome), [
            "admitted",
            "admitted",
            "admitted"
          ])
        }))

      for (const reject of ["QueueFull", "WaitTooLong", "TimedOut"] as const) {
        it.effect(`reject, ${reject}`, () =>
          Effect.gen(function*() {
            const { asked, throttle } = yield* Testing.make({
              name: "api",
              script: [{ reject, retryAfter: "2 seconds" }, { reject }]
            })
            if (method === "withPermitsIfAvailable" || method === "allow") {
              assert.strictEqual(yield* ask(throttle, ran, cost), "none")
              assert.deepStrictEqual(yield* asked, [{ method, cost, outcome: "none" }])
              assert.deepStrictEqual(yield* throttle.statistics, idle)
              return
            }
            const first = yield* Effect.flip(ask(throttle, Effect.die("it started"), cost))
            assert.instanceOf(first, ThrottleError)
            assert.strictEqual(first.reason._tag, reject)
            assert.strictEqual(first.reason.throttle, "api")
            assert.deepStrictEqual(first.reason.cost, typeof cost === "number" ? { permits: 1 } : cost)
            assert.strictEqual(first.reason.queued, 0)
            assert.deepStrictEqual(first.reason.parts, [])
            assert.deepStrictEqual(first.retryAfter, Duration.seconds(2))
            const second = yield* Effect.flip(ask(throttle, ran, cost))
            assert.isUndefined(second.retryAfter)
            const rejected = { method, cost, outcome: "rejected", reason: reject }
            assert.deepStrictEqual<unknown>(yield* asked, [rejected, rejected])
            assert.deepStrictEqual(yield* throttle.statistics, { ...idle, rejected: { ...idle.rejected, [reject]: 2 } })
          }))
      }

      it.effect("reject, PermitsExceedCapacity", () =>
        Effect.gen(function*() {
          const { asked, throttle } = yield* Testing.make({ otherwise: { reject: "PermitsExceedCapacity" } })
          const error = yield* Effect.flip(ask(throttle, Effect.die("it started"), cost))
          assert.strictEqual(error.reason._tag, "PermitsExceedCapacity")
          assert.match(error.message, /^PermitsExceedCapacity: throttle "recorder": requested /)
          assert.deepStrictEqual<unknown>(yield* asked, [
            { method, cost, outcome: "rejected", reason: "PermitsExceedCapacity" }
          ])
          assert.deepStrictEqual(yield* throttle.statistics, {
            ...idle,
            rejected: { ...idle.rejected, PermitsExceedCapacity: 1 }
          })
        }))
    })
  }

  for (const [method, ask] of waiting) {
    const cost = 1
    describe(`${method}, scripted to wait`, () => {
      it.effect("waits for so long, then runs", () =>
        Effect.gen(function*() {
          const { asked, throttle } = yield* Testing.make({ script: [{ wait: "300 millis" }] })
          const fiber = yield* Effect.forkChild(ask(throttle, Effect.map(Clock.currentTimeMillis, String), cost))
          yield* Testing.waitUntilWaiting(throttle, 1)
          assert.deepStrictEqual(yield* asked, [{ method, cost, outcome: "waiting" }])
          assert.deepStrictEqual(yield* throttle.statistics, { ...idle, waiting: 1 })
          yield* TestClock.adjust("299 millis")
          assert.strictEqual((yield* throttle.statistics).waiting, 1)
          yield* TestClock.adjust("1 millis")
          assert.strictEqual(yield* Fiber.join(fiber), "300")
          assert.deepStrictEqual(yield* asked, [{ method, cost, outcome: "admitted" }])
          const waited = Duration.millis(300)
          assert.deepStrictEqual(yield* throttle.statistics, { ...idle, admitted: 1, waited, longestWait: waited })
        }))

      it.effect("interrupted while it waits, it has never started", () =>
        Effect.gen(function*() {
          const { asked, throttle } = yield* Testing.make({ script: [{ wait: Duration.infinity }, { wait: 1 }] })
          for (const _ of [1, 2]) {
            const fiber = yield* fork(ask(throttle, Effect.die("it started"), cost))
            yield* Testing.waitUntilWaiting(throttle, 1)
            yield* Fiber.interrupt(fiber)
            assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(fiber)))
          }
          const interrupted = { method, cost, outcome: "interrupted" }
          assert.deepStrictEqual<unknown>(yield* asked, [interrupted, interrupted])
          assert.deepStrictEqual(yield* throttle.statistics, { ...idle, interrupted: 2 })
        }))

      it.effect("interrupted at any step, it leaves nothing behind", () =>
        Effect.gen(function*() {
          const outcomes = new Set<string | undefined>()
          for (let steps = 0; outcomes.size < 4 || steps < 60; steps++) {
            assert.isBelow(steps, 1_000, `only ${[...outcomes]}`)
            const { asked, throttle } = yield* Testing.make({ script: [{ wait: 10 }] })
            const fiber = yield* ask(throttle, ran, cost).pipe(
              Effect.provideService(Scheduler.MaxOpsBeforeYield, 3),
              Effect.forkChild
            )
            for (let i = 0; i < steps; i++) {
              yield* Effect.yieldNow
              if (i === 30) yield* TestClock.adjust(10)
            }
            const [before] = yield* asked as Effect.Effect<ReadonlyArray<Testing.Call>>
            yield* Fiber.interrupt(fiber)
            const [after] = yield* asked as Effect.Effect<ReadonlyArray<Testing.Call>>
            const { admitted, interrupted, running, waiting } = yield* throttle.statistics
            assert.deepStrictEqual({ running, waiting }, { running: 0, waiting: 0 })
            assert.strictEqual(admitted, after?.outcome === "admitted" ? 1 : 0)
            assert.strictEqual(interrupted, after?.outcome === "interrupted" ? 1 : 0)
            outcomes.add(before?.outcome).add(after?.outcome)
          }
          assert.sameMembers([...outcomes], [undefined, "waiting", "interrupted", "admitted"])
        }))

      it.effect("cannot be interrupted where the caller cannot", () =>
        Effect.gen(function*() {
          const { throttle } = yield* Testing.make({ script: [{ wait: 100 }] })
          const fiber = yield* fork(Effect.uninterruptible(ask(throttle, ran, cost)))
          yield* fork(Fiber.interrupt(fiber))
          yield* TestClock.adjust(100)
          yield* Fiber.await(fiber)
          const { admitted, interrupted, running } = yield* throttle.statistics
          assert.deepStrictEqual({ admitted, interrupted, running }, { admitted: 1, interrupted: 0, running: 0 })
        }))
    })
  }

  it.effect("withPermitsIfAvailable, scripted to wait: none, without waiting", () =>
    Effect.gen(function*() {
      const { asked, throttle } = yield* Testing.make({ script: [{ wait: "1 hour" }] })
      assert.deepStrictEqual(yield* throttle.withPermitsIfAvailable(Effect.die("it started"), 2), Option.none())
      assert.deepStrictEqual(yield* throttle.withPermitsIfAvailable(ran, 2), Option.some("ran"))
      const method = "withPermitsIfAvailable"
      assert.deepStrictEqual(yield* asked, [
        { method, cost: 2, outcome: "none" },
        { method, cost: 2, outcome: "admitted" }
      ])
    }))

  it.effect("both forms, and costs that are not given", () =>
    Effect.gen(function*() {
      const { asked, throttle } = yield* Testing.make()
      assert.strictEqual(yield* ran.pipe(throttle.withPermits(2)), "ran")
      assert.strictEqual(yield* throttle.withPermits(ran, 3), "ran")
      assert.deepStrictEqual(yield* ran.pipe(throttle.withPermitsIfAvailable({ tokens: 4 })), Option.some("ran"))
      assert.deepStrictEqual(yield* throttle.withPermitsIfAvailable(ran, 5), Option.some("ran"))
      assert.strictEqual(yield* throttle.usePermits(6)(() => ran), "ran")
      assert.strictEqual(yield* throttle.usePermits(() => ran, 7), "ran")
      // As a function is used that is handed more arguments than it takes.
      const withPermits: any = throttle.withPermits
      assert.strictEqual(yield* (withPermits(ran, 8, "more") as typeof ran), "ran")
      yield* throttle.wait()
      yield* Effect.scoped(throttle.takeScoped())
      yield* throttle.estimateWait()
      yield* throttle.withPermits(ran, 0)
      assert.deepStrictEqual((yield* asked).map((asked) => "cost" in asked && [asked.method, asked.cost]), [
        ["withPermits", 2],
        ["withPermits", 3],
        ["withPermitsIfAvailable", { tokens: 4 }],
        ["withPermitsIfAvailable", 5],
        ["usePermits", 6],
        ["usePermits", 7],
        ["withPermits", 8],
        ["wait", 1],
        ["takeScoped", 1],
        ["estimateWait", 1],
        ["withPermits", 0]
      ])
    }))

  it.effect("answers in order of arrival, then with otherwise", () =>
    Effect.gen(function*() {
      const { asked, throttle } = yield* Testing.make({
        script: [{ wait: "2 seconds" }, "admit", { wait: "1 second" }],
        otherwise: { reject: "QueueFull" }
      })
      const ends: Array<readonly [number, number]> = []
      yield* Effect.forEach([1, 2, 3, 4, 5], (n) =>
        throttle.withPermits(
          Effect.map(Clock.currentTimeMillis, (now) => ends.push([n, now])),
          n
        ).pipe(
          Effect.ignore,
          Effect.forkChild
        ))
      yield* Testing.waitUntilWaiting(throttle, 2)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(ends, [[2, 0], [3, 1_000], [1, 2_000]])
      assert.deepStrictEqual(
        (yield* asked).map((asked) => "outcome" in asked && [asked.cost, asked.outcome]),
        [[1, "admitted"], [2, "admitted"], [3, "admitted"], [4, "rejected"], [5, "rejected"]]
      )
      assert.deepStrictEqual(yield* throttle.statistics, {
        ...idle,
        admitted: 3,
        rejected: { ...idle.rejected, QueueFull: 2 },
        waited: Duration.seconds(3),
        longestWait: Duration.seconds(2)
      })
    }))

  it.effect("a rejection contains the number of waiting calls", () =>
    Effect.gen(function*() {
      const { throttle } = yield* Testing.make({
        script: [{ wait: Duration.infinity }, { wait: Duration.infinity }],
        otherwise: { reject: "QueueFull" }
      })
      yield* Effect.forEach([1, 2], () => fork(throttle.wait()))
      assert.strictEqual((yield* Effect.flip(throttle.wait())).reason.queued, 2)
    }))

  it.effect("estimateWait tells of the next answer and leaves it", () =>
    Effect.gen(function*() {
      const { asked, throttle } = yield* Testing.make({
        script: ["admit", { wait: "3 seconds" }, { reject: "QueueFull", retryAfter: "4 seconds" }, {
          reject: "TimedOut"
        }],
        otherwise: { wait: Duration.infinity }
      })
      const told: Array<Option.Option<Duration.Duration>> = []
      for (let i = 0; i < 5; i++) {
        told.push(yield* throttle.estimateWait(2))
        assert.deepStrictEqual(yield* throttle.estimateWait(2), told[i])
        yield* throttle.withPermitsIfAvailable(Effect.void, 1)
      }
      const some = (seconds: number) => Option.some(Duration.seconds(seconds))
      assert.deepStrictEqual(told.map(Option.map(Duration.toSeconds)), [
        ...[0, 3, 4].map((seconds) => Option.map(some(seconds), Duration.toSeconds)),
        Option.none(),
        Option.none()
      ])
      assert.deepStrictEqual((yield* asked).slice(0, 3), [
        { method: "estimateWait", cost: 2 },
        { method: "estimateWait", cost: 2 },
        { method: "withPermitsIfAvailable", cost: 1, outcome: "admitted" }
      ])
    }))

  it.effect("pause, resume and update are recorded, and have no effect", () =>
    Effect.gen(function*() {
      const { asked, throttle } = yield* Testing.make()
      const policy = Throttle.rate({ limit: 1, maxQueue: 0, unit: "tokens" })
      yield* throttle.pause("2 seconds")
      yield* throttle.pause(Duration.infinity)
      yield* throttle.wait()
      yield* throttle.resume
      yield* throttle.update(policy)
      yield* throttle.wait({ other: 3 })
      assert.deepStrictEqual(yield* asked, [
        { method: "pause", duration: Duration.seconds(2) },
        { method: "pause", duration: Duration.infinity },
        { method: "wait", cost: 1, outcome: "admitted" },
        { method: "resume" },
        { method: "update", policy: policy.data },
        { method: "wait", cost: { other: 3 }, outcome: "admitted" }
      ])
    }))

  describe("a permit", () => {
    /** What is recorded of one that this was done to. */
    const after = Effect.fnUntraced(
      function*(f: (permit: Throttle.Permit, throttle: Throttle.Throttle) => Effect.Effect<unknown, unknown>) {
        const { asked, throttle } = yield* Testing.make()
        const permit = yield* throttle.usePermits((permit) => Effect.as(f(permit, throttle), permit), { tokens: 9 })
        assert.deepStrictEqual(permit.cost, { tokens: 9 })
        // It has ended: nothing counts any more.
        yield* permit.settle({ tokens: 1 })
        yield* permit.cancel
        assert.strictEqual((yield* throttle.statistics).running, 0)
        const { cost: _, method, outcome, ...more } = (yield* asked)[0] as Testing.Call
        assert.deepStrictEqual({ method, outcome }, { method: "usePermits", outcome: "admitted" })
        return more
      }
    )

    it.effect("has the cost that was passed", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* after(() => Effect.void), {})
      }))

    it.effect("is settled once", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(
          yield* after(({ cancel, settle }) => Effect.all([settle({ tokens: 7 }), settle({ tokens: 8 }), cancel])),
          { settled: { tokens: 7 } }
        )
      }))

    it.effect("settled for 0 is settled", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* after(({ cancel, settle }) => Effect.andThen(settle(0), cancel)), { settled: 0 })
      }))

    it.effect("is cancelled once, and releases at once", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(
          yield* after(({ cancel, settle }, { statistics }) =>
            Effect.gen(function*() {
              assert.strictEqual((yield* statistics).running, 1)
              yield* cancel
              assert.strictEqual((yield* statistics).running, 0)
              yield* settle({ tokens: 7 })
              yield* cancel
            })
          ),
          { cancelled: true }
        )
      }))

    it.effect("is still to be settled after a cost that makes no sense", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(
          yield* after(({ settle }) => Effect.andThen(dies(settle(-1), /≥ 0, received -1/), settle(3))),
          { settled: 3 }
        )
      }))

    it.effect("of takeScoped lives as long as its scope", () =>
      Effect.gen(function*() {
        const { asked, throttle } = yield* Testing.make()
        const scope = yield* Scope.make()
        const permit = yield* Scope.provide(throttle.takeScoped(4), scope)
        const other = yield* Scope.provide(throttle.takeScoped({ tokens: 5 }), scope)
        yield* Testing.waitUntilRunning(throttle, 2)
        yield* permit.settle(3)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual((yield* throttle.statistics).running, 0)
        yield* other.settle({ tokens: 1 })
        yield* other.cancel
        assert.deepStrictEqual(yield* asked, [
          { method: "takeScoped", cost: 4, outcome: "admitted", settled: 3 },
          { method: "takeScoped", cost: { tokens: 5 }, outcome: "admitted" }
        ])
      }))

    it.effect("a function that throws instead of giving an effect has held nothing in the end", () =>
      Effect.gen(function*() {
        const { throttle } = yield* Testing.make()
        yield* defect(throttle.usePermits((): Effect.Effect<void> => {
          throw new Error("bug")
        }, 1))
        assert.deepStrictEqual(yield* throttle.statistics, { ...idle, admitted: 1 })
      }))
  })

  it.effect("a record does not change with the objects that were passed", () =>
    Effect.gen(function*() {
      const { asked, throttle } = yield* Testing.make()
      const cost = { tokens: 1 }
      yield* throttle.usePermits((permit) => permit.settle(cost), cost)
      const before = yield* asked
      cost.tokens = 2
      yield* throttle.wait(cost)
      assert.deepStrictEqual<unknown>(before, [
        { method: "usePermits", cost: { tokens: 1 }, outcome: "admitted", settled: { tokens: 1 } }
      ])
    }))

  it.effect("what makes no sense dies as it would elsewhere, takes no answer and is not recorded", () =>
    Effect.gen(function*() {
      const { asked, throttle } = yield* Testing.make({
        name: "api",
        script: ["admit"],
        otherwise: { reject: "QueueFull" }
      })
      for (const cost of [-1, 0.5, NaN, { tokens: -1 }, "1", [], null] as Array<any>) {
        for (const [method, ask] of everyMethod) {
          if (method !== "withPermit") yield* dies(ask(throttle, ran, cost), /^throttle "api": a cost must be /)
        }
        yield* dies(throttle.estimateWait(cost), /^throttle "api": a cost must be /)
      }
      yield* dies(throttle.pause(-1), /^throttle "api": "duration" must be a duration ≥ 0, received -1/)
      yield* dies(throttle.pause("soon" as any), /^throttle "api": "duration" must be /)
      yield* dies(throttle.update({} as any), /^throttle "api": "policy" must be a policy, received \{\}/)
      assert.deepStrictEqual(yield* asked, [])
      yield* throttle.wait()
      assert.strictEqual((yield* throttle.statistics).admitted, 1)
    }))

  it.effect("each is one of its own", () =>
    Effect.gen(function*() {
      const make = Testing.make({ script: [{ reject: "QueueFull" }] })
      const [first, second] = [yield* make, yield* make]
      yield* Effect.flip(first.throttle.wait())
      assert.deepStrictEqual(yield* second.asked, [])
      yield* Effect.flip(second.throttle.wait())
    }))

  it.effect("keeps what comes by the thousand in its order", () =>
    Effect.gen(function*() {
      const { asked, throttle } = yield* Testing.make()
      const costs = Array.from({ length: 5_000 }, (_, i) => i)
      yield* Effect.forEach(costs, (n) => throttle.withPermits(Effect.void, n), { discard: true })
      assert.deepStrictEqual((yield* asked).map((asked) => "cost" in asked ? asked.cost : -1), costs)
    }))
})

describe("layers", () => {
  const bounded = Throttle.rate({ limit: 1, maxQueue: 0 })

  class GitHub extends Throttle.Service<GitHub>()("app/GitHub", bounded) {}
  class OpenAI extends Throttle.Service<OpenAI>()(
    "app/OpenAI",
    Throttle.all([Throttle.rate({ limit: 1 }), Throttle.rate({ limit: 1, unit: "tokens" })], { name: "openai" })
  ) {}

  it.effect("layer: the generic service and its recorder", () =>
    Effect.gen(function*() {
      yield* Effect.flip(call)
      yield* Throttle.wait(2)
      const recorder = yield* Testing.Recorder
      assert.strictEqual(recorder.throttle, yield* Throttle.Throttle)
      assert.deepStrictEqual(yield* recorder.asked, [
        { method: "withPermit", cost: 1, outcome: "rejected", reason: "QueueFull" },
        { method: "wait", cost: 2, outcome: "admitted" }
      ])
    }).pipe(Effect.provide(Testing.layer({ script: [{ reject: "QueueFull" }] }))))

  it.effect("layer: each build has a recorder of its own", () =>
    Effect.gen(function*() {
      const layer = Testing.layer()
      const count = Effect.gen(function*() {
        yield* call
        return (yield* (yield* Testing.Recorder).asked).length
      })
      assert.strictEqual(yield* Effect.provide(count, layer), 1)
      assert.strictEqual(yield* Effect.provide(count, layer), 1)
    }))

  it.effect("layerFor: several classes, each with its recorder", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(GitHub.withPermit(Effect.void))
      assert.strictEqual(error.reason.throttle, "app/GitHub")
      const exceeds = yield* Effect.flip(
        OpenAI.usePermits({ tokens: 5 })((permit) => permit.settle({ tokens: 3 })).pipe(
          Effect.andThen(Effect.fail("ran" as const))
        )
      )
      assert.strictEqual(exceeds, "ran")
      yield* OpenAI.pause("1 second")
      const github = yield* Testing.recorderOf(GitHub)
      const openai = yield* Testing.recorderOf(OpenAI)
      assert.strictEqual(github.throttle, yield* GitHub)
      assert.deepStrictEqual((yield* github.asked).map(({ method }) => method), ["withPermit"])
      assert.deepStrictEqual<unknown>(yield* openai.asked, [
        { method: "usePermits", cost: { tokens: 5 }, outcome: "admitted", settled: { tokens: 3 } },
        { method: "pause", duration: Duration.seconds(1) }
      ])
    }).pipe(
      Effect.provide(Layer.merge(
        Testing.layerFor(GitHub, { script: [{ reject: "QueueFull" }] }),
        Testing.layerFor(OpenAI)
      ))
    ))

  it.effect("layerFor: errors call it by its options, its policy's name or its key", () =>
    Effect.gen(function*() {
      class Named
        extends Throttle.Service<Named>()("app/Named", Throttle.rate({ limit: 1, maxQueue: 0, name: "named" }))
      {}
      const nameOf = (options: Testing.Options) =>
        Effect.flip(Named.withPermit(Effect.void)).pipe(
          Effect.map((error) => error.reason.throttle),
          Effect.provide(Testing.layerFor(Named, { otherwise: { reject: "TimedOut" }, ...options }))
        )
      assert.strictEqual(yield* nameOf({}), "named")
      assert.strictEqual(yield* nameOf({ name: "other" }), "other")
    }))

  it.effect("layerFor: every static of the class reaches the recorder", () =>
    Effect.gen(function*() {
      yield* GitHub.withPermit(ran)
      yield* GitHub.withPermits(ran, 2)
      yield* GitHub.withPermitsIfAvailable(ran, 3)
      yield* GitHub.wait(4)
      yield* Effect.scoped(GitHub.takeScoped(5))
      yield* GitHub.usePermits(() => ran, 6)
      yield* GitHub.estimateWait(7)
      yield* GitHub.pause(8)
      yield* GitHub.resume
      yield* GitHub.update(bounded)
      assert.strictEqual((yield* GitHub.statistics).admitted, 6)
      const { asked } = yield* Testing.recorderOf(GitHub)
      assert.deepStrictEqual((yield* asked).map(({ method }) => method), [
        "withPermit",
        "withPermits",
        "withPermitsIfAvailable",
        "wait",
        "takeScoped",
        "usePermits",
        "estimateWait",
        "pause",
        "resume",
        "update"
      ])
    }).pipe(Effect.provide(Testing.layerFor(GitHub))))

  it("types", () => {
    expectTypeOf(Testing.make()).toEqualTypeOf<Effect.Effect<Testing.Recorder>>()
    expectTypeOf(Testing.layer()).toEqualTypeOf<Layer.Layer<Throttle.Throttle | Testing.Recorder>>()
    expectTypeOf(Testing.layerFor(GitHub)).toEqualTypeOf<Layer.Layer<GitHub | Testing.RecorderOf<GitHub>>>()
    expectTypeOf(Testing.layerFor(OpenAI)).toEqualTypeOf<Layer.Layer<OpenAI | Testing.RecorderOf<OpenAI>>>()
    expectTypeOf(Testing.recorderOf(GitHub)).toEqualTypeOf<
      Context.Service<Testing.RecorderOf<GitHub>, Testing.Recorder>
    >()
    expectTypeOf<Testing.RecorderOf<GitHub>>().not.toExtend<Testing.RecorderOf<OpenAI>>()
    const script: ReadonlyArray<Testing.Answer> = ["admit", { wait: 1 }, { reject: "TimedOut", retryAfter: 1 }]
    Testing.make({ script })
    Testing.layerFor(GitHub, { script })
    Testing.layerFor(OpenAI, { script: ["admit", { wait: 1 }], otherwise: "admit" })
    // @ts-expect-error its withPermit promises not to fail
    Testing.layerFor(OpenAI, { script: [{ reject: "QueueFull" }] })
    // @ts-expect-error its withPermit promises not to fail
    Testing.layerFor(OpenAI, { otherwise: { reject: "QueueFull" } })
    // @ts-expect-error its withPermit promises not to fail
    Testing.layerFor(OpenAI, { script })
    // @ts-expect-error time does not help against it
    const never: Testing.Answer = { reject: "PermitsExceedCapacity", retryAfter: 1 }
    // @ts-expect-error no such reason
    const unknown: Testing.Answer = { reject: "KeysExhausted" }
    void [never, unknown]
    // @ts-expect-error the generic service is no class
    const no = () => Testing.layerFor(Throttle.Throttle)
    void no
  })
})

describe("options that make no sense", () => {
  class GitHub extends Throttle.Service<GitHub>()("app/GitHub", Throttle.rate({ limit: 1, maxQueue: 0 })) {}

  const table: Array<[options: any, message: string]> = [
    [null, "options must be an object, received null"],
    ["admit", `options must be an object, received "admit"`],
    [{ scrpt: [] }, `unknown option "scrpt"; the options are script, otherwise, name`],
    [{ name: "" }, `"name" must be a non-empty string, received ""`],
    [{ name: 1 }, `"name" must be a non-empty string, received 1`],
    [{ script: "admit" }, `"script" must be an array, received "admit"`],
    [{ script: ["admit", "no"] }, `"script[1]" must be "admit", { wait } or { reject }, received "no"`],
    // oxlint-disable-next-line no-sparse-arrays
    [{ script: [, "admit"] }, `"script[0]" must be "admit", { wait } or { reject }, received undefined`],
    [{ otherwise: null }, `"otherwise" must be "admit", { wait } or { reject }, received null`],
    [{ otherwise: {} }, `"otherwise" must be "admit", { wait } or { reject }, received {}`],
    [
      { otherwise: { wait: 1, reject: "QueueFull" } },
      `"otherwise" must be "admit", { wait } or { reject }, received {"wait":1,"reject":"QueueFull"}`
    ],
    [{ otherwise: { wait: 0 } }, `"otherwise.wait" must be a duration > 0, received 0`],
    [{ otherwise: { wait: -1 } }, `"otherwise.wait" must be a duration > 0, received -1`],
    [{ otherwise: { wait: NaN } }, `"otherwise.wait" must be a duration > 0, received NaN`],
    [{ otherwise: { wait: undefined } }, `"otherwise.wait" must be a duration > 0, received undefined`],
    [{ script: [{ wait: "soon" }] }, `"script[0].wait" must be a duration > 0, received "soon"`],
    [{ otherwise: { wait: 1, retryAfter: 1 } }, `otherwise: unknown option "retryAfter"; the options are wait`],
    [
      { otherwise: { reject: "QueueFull", after: 1 } },
      `otherwise: unknown option "after"; the options are reject, retryAfter`
    ],
    [
      { otherwise: { reject: "Full" } },
      `"otherwise.reject" must be "QueueFull" or "WaitTooLong" or "TimedOut" or "PermitsExceedCapacity" or "Draining", received "Full"`
    ],
    [
      { otherwise: { reject: "QueueFull", retryAfter: -1 } },
      `"otherwise.retryAfter" must be a finite duration ≥ 0, received -1`
    ],
    [
      { otherwise: { reject: "QueueFull", retryAfter: Infinity } },
      `"otherwise.retryAfter" must be a finite duration ≥ 0, received Infinity`
    ],
    [
      { otherwise: { reject: "PermitsExceedCapacity", retryAfter: 1 } },
      `"otherwise.retryAfter" must be undefined with PermitsExceedCapacity, received 1`
    ]
  ]

  for (const [options, message] of table) {
    it(message, () => {
      const makers: Record<string, (options: any) => unknown> = {
        "Testing.make": (options) => Testing.make(options),
        "Testing.layer": (options) => Testing.layer(options),
        "Testing.layerFor": (options) => Testing.layerFor(GitHub, options)
      }
      for (const [name, make] of Object.entries(makers)) {
        try {
          make(options)
        } catch (error) {
          assert.instanceOf(error, RangeError)
          assert.include([`${name}: ${message}`, `${name}, ${message}`], (error as Error).message)
          continue
        }
        assert.fail(`${name} took it`)
      }
    })
  }

  it("undefined is as good as absent", () => {
    Testing.make({ script: undefined, otherwise: undefined, name: undefined })
    Testing.make({ otherwise: { reject: "QueueFull", retryAfter: undefined } })
    Testing.make({ otherwise: { reject: "PermitsExceedCapacity", retryAfter: undefined } })
  })
})
