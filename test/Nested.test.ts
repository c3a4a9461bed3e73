/**
 * A call inside a call of the same throttle: where it would wait for itself for ever it dies and says why, or passes.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Option, Scope } from "effect"
import { Throttle } from "effect-throttle"
import { TestClock } from "effect/testing"
import { assertIdle, fork, now, onlyFreeOf, reasonOf } from "./utils/kit.ts"

const defectOf = (exit: Exit.Exit<unknown, unknown> | undefined): Error | undefined => {
  const died = exit !== undefined && Exit.isFailure(exit) ? exit.cause.reasons.find(Cause.isDieReason) : undefined
  return died?.defect as Error | undefined
}

/** Each lets one call run at a time. */
const singles: Record<string, (options?: { readonly onReentry?: "die" | "bypass" }) => Throttle.Policy<never>> = {
  concurrency: (options) => Throttle.concurrency({ limit: 1, name: "inner", ...options }),
  "spacing from the end": (options) => Throttle.spacing({ interval: 10, from: "end", name: "inner", ...options }),
  "a part of an all": (options) =>
    Throttle.all([
      Throttle.rate({ limit: 1_000, burst: 99 }),
      Throttle.concurrency({ limit: 1, name: "inner", ...options })
    ])
}

for (const [kind, make] of Object.entries(singles)) {
  describe(`re-entry: ${kind}`, () => {
    it.effect("dies with a message that names throttle, part and a way out", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(Throttle.all([make()], { name: "outer" }))
        const exit = yield* Effect.exit(throttle.withPermit(throttle.withPermit(Effect.die("must not run"))))
        const defect = defectOf(exit)
        assert.instanceOf(defect, Error)
        assert.include(defect!.message, `throttle "outer"`)
        assert.include(defect!.message, `"inner"`)
        assert.include(defect!.message, `onReentry: "bypass"`)
        // What the outer call held has come back.
        assertIdle(throttle)
        yield* TestClock.adjust(10)
        assert.strictEqual(yield* throttle.withPermit(Effect.succeed(1)), 1)
        const { admitted, rejected, waiting } = yield* throttle.statistics
        assert.deepStrictEqual([admitted, waiting], [2, 0])
        assert.strictEqual(Object.values(rejected).reduce((a, b) => a + b), 0)
      }))

    it.effect("may be survived by the outer call, which still holds", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make())
        yield* throttle.withPermit(Effect.gen(function*() {
          assert.isDefined(defectOf(yield* Effect.exit(throttle.withPermit(Effect.void))))
          assert.strictEqual((yield* throttle.statistics).running, 1)
          assert.isTrue(Option.isNone(yield* throttle.withPermitsIfAvailable(Effect.void, 1)))
        }))
        assertIdle(throttle)
      }))

    it.effect("inline", () =>
      Effect.gen(function*() {
        const policy = make()
        assert.include(defectOf(yield* Effect.exit(policy(policy(Effect.void))))!.message, `"inner"`)
        const passing = make({ onReentry: "bypass" })
        assert.strictEqual(yield* passing(passing(passing(Effect.succeed(3)))), 3)
        assertIdle(yield* Throttle.inline(policy))
        assertIdle(yield* Throttle.inline(passing))
      }))

    it.effect("bypass: nested calls run without permits at any depth, and the permit is released once", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make({ onReentry: "bypass" }))
        const exit = yield* Effect.exit(throttle.withPermit(Effect.gen(function*() {
          const inner = yield* throttle.withPermit(throttle.withPermit(Effect.succeed("in")))
          const { running } = yield* throttle.statistics
          return [inner, running, yield* now]
        })))
        assert.deepStrictEqual(exit, Exit.succeed(["in", 1, 0]))
        assert.strictEqual((yield* throttle.statistics).admitted, 3)
        assertIdle(throttle)
      }))

    it.effect("bypass: an inner call that fails, dies or is interrupted does not release the outer call's permit", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make({ onReentry: "bypass" }))
        yield* throttle.withPermit(Effect.gen(function*() {
          assert.deepStrictEqual(yield* Effect.exit(throttle.withPermit(Effect.fail("no"))), Exit.fail("no"))
          assert.isTrue(Exit.isFailure(yield* Effect.exit(throttle.withPermit(Effect.die("bug")))))
          assert.isTrue(Exit.isFailure(yield* Effect.exit(throttle.withPermit(Effect.interrupt))))
          assert.strictEqual((yield* throttle.statistics).running, 1)
        }))
        assertIdle(throttle)
        yield* TestClock.adjust(10)
        const fiber = yield* fork(throttle.withPermit(throttle.withPermit(Effect.never)))
        assert.strictEqual((yield* throttle.statistics).running, 1)
        yield* Fiber.interrupt(fiber)
        assertIdle(throttle)
      }))

    it.effect("pass: others wait all the same", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make({ onReentry: "bypass" }))
        let ran = false
        yield* fork(throttle.withPermit(throttle.withPermit(Effect.sleep(50))))
        yield* fork(throttle.withPermit(Effect.sync(() => {
          ran = true
        })))
        yield* TestClock.adjust(49)
        assert.isFalse(ran)
        yield* TestClock.adjust(11)
        assert.isTrue(ran)
        assertIdle(throttle)
      }))

    it.effect("takeScoped, then withPermit in the same fiber: waits, since another fiber may close the scope", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make())
        const scope = yield* Scope.make()
        const fiber = yield* fork(
          Effect.andThen(Scope.provide(throttle.takeScoped(), scope), throttle.withPermit(Effect.succeed("in")))
        )
        yield* TestClock.adjust("1 hour")
        assert.isUndefined(fiber.pollUnsafe())
        yield* Scope.close(scope, Exit.void)
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(yield* Fiber.join(fiber), "in")
        assertIdle(throttle)
      }))

    it.effect("a pool whose workers close the scopes that its own fiber took", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make())
        const ended: Array<number> = []
        for (const job of [1, 2, 3]) {
          const scope = yield* Scope.make()
          const taking = yield* Effect.forkChild(Scope.provide(throttle.takeScoped(), scope), {
            startImmediately: true
          })
          yield* TestClock.adjust(10)
          yield* Fiber.join(taking)
          yield* fork(
            Effect.sleep(5).pipe(
              Effect.andThen(Effect.sync(() => void ended.push(job))),
              Effect.ensuring(Scope.close(scope, Exit.void))
            )
          )
          yield* TestClock.adjust(10)
        }
        yield* TestClock.adjust(100)
        assert.deepStrictEqual(ended, [1, 2, 3])
        assertIdle(throttle)
      }))

    it.effect("withPermit, then takeScoped in the same fiber", () =>
      Effect.gen(function*() {
        const dying = yield* Throttle.make(make())
        assert.isDefined(defectOf(yield* Effect.exit(dying.withPermit(Effect.scoped(dying.takeScoped())))))
        assertIdle(dying)
        const passing = yield* Throttle.make(make({ onReentry: "bypass" }))
        yield* passing.withPermit(Effect.scoped(Effect.gen(function*() {
          const permit = yield* passing.takeScoped()
          // It was granted nothing, so there is nothing to settle or to give back.
          yield* permit.settle(1)
          yield* permit.cancel
          assert.strictEqual((yield* passing.statistics).running, 1)
        })))
        assertIdle(passing)
      }))

    it.effect("usePermits in usePermits", () =>
      Effect.gen(function*() {
        const dying = yield* Throttle.make(make())
        const nest = (throttle: Throttle.Throttle) =>
          throttle.usePermits(1)(() => throttle.usePermits(1)(() => Effect.succeed("in")))
        // Whoever has the outer permit may cancel it: it is not certain that it waits for ever.
        const waits = yield* fork(nest(dying))
        yield* TestClock.adjust("1 hour")
        assert.isUndefined(waits.pollUnsafe())
        yield* Fiber.interrupt(waits)
        assertIdle(dying)
        const passing = yield* Throttle.make(make({ onReentry: "bypass" }))
        assert.strictEqual(yield* nest(passing), "in")
        assertIdle(passing)
      }))

    it.effect("a call that had to wait for its own turn is known as a holder too", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make())
        yield* fork(throttle.withPermit(Effect.sleep(10)))
        const nested = yield* fork(throttle.withPermit(throttle.withPermit(Effect.void)))
        yield* TestClock.adjust(100)
        assert.include(defectOf(nested.pollUnsafe())!.message, `"inner"`)
        assertIdle(throttle)
      }))

    it.effect("with a timeout it times out instead", () =>
      Effect.gen(function*() {
        for (const nested of ["die", "bypass"] as const) {
          const throttle = yield* Throttle.make(Throttle.all([make({ onReentry: nested })], { timeout: 25 }))
          const fiber = yield* fork(throttle.withPermit(throttle.withPermit(Effect.void)))
          yield* TestClock.adjust(24)
          assert.isUndefined(fiber.pollUnsafe())
          yield* TestClock.adjust(1)
          assert.strictEqual(reasonOf(fiber.pollUnsafe()), "TimedOut")
          assertIdle(throttle)
        }
      }))

    it.effect("with maxQueue: 0 it is rejected instead", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(Throttle.all([make()], { maxQueue: 0 }))
        assert.strictEqual(
          reasonOf(yield* Effect.exit(throttle.withPermit(throttle.withPermit(Effect.void)))),
          "QueueFull"
        )
        assertIdle(throttle)
      }))

    it.effect("withPermitsIfAvailable: Option.none(), with either onReentry", () =>
      Effect.gen(function*() {
        for (const nested of ["die", "bypass"] as const) {
          const throttle = yield* Throttle.make(make({ onReentry: nested }))
          const inner = yield* throttle.withPermit(throttle.withPermitsIfAvailable(Effect.succeed(1), 1))
          assert.deepStrictEqual(inner, Option.none())
          assertIdle(throttle)
        }
      }))

    it.effect("a child fiber is not known to be inside: it waits, and the outer call must not wait for it", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make())
        const outer = yield* fork(throttle.withPermit(Effect.gen(function*() {
          return yield* Fiber.join(yield* fork(throttle.withPermit(Effect.void)))
        })))
        yield* TestClock.adjust("1 hour")
        assert.isUndefined(outer.pollUnsafe())
        assert.strictEqual((yield* throttle.statistics).waiting, 1)
        yield* Fiber.interrupt(outer)
        yield* TestClock.adjust(10)
        assertIdle(throttle)
      }))

    it.effect("different throttles of one policy may be nested", () =>
      Effect.gen(function*() {
        const policy = make()
        const [a, b] = yield* Effect.all([Throttle.make(policy), Throttle.make(policy)])
        assert.strictEqual(yield* a.withPermit(b.withPermit(policy(Effect.succeed(1)))), 1)
        for (const throttle of [a, b, yield* Throttle.inline(policy)]) assertIdle(throttle)
      }))

    it.effect("calls one after the other are no re-entry", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make())
        yield* Effect.forEach([1, 2, 3], () => Effect.andThen(throttle.withPermit(Effect.void), TestClock.adjust(10)))
        assert.strictEqual((yield* throttle.statistics).admitted, 3)
      }))

    it.effect("an inner call of cost 0 does not die where no waiting call needs the outer call's permit", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make())
        assert.strictEqual(yield* throttle.withPermit(throttle.withPermits(Effect.succeed("in"), 0)), "in")
        assertIdle(throttle)
      }))
  })
}

describe("re-entry: several permits", () => {
  it.effect("one that holds one of two gets the other", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 2 }))
      assert.strictEqual(yield* throttle.withPermit(throttle.withPermit(Effect.succeed("in"))), "in")
      const exit = yield* Effect.exit(throttle.withPermit(throttle.withPermit(throttle.withPermit(Effect.void))))
      assert.isDefined(defectOf(exit))
      assertIdle(throttle)
    }))

  it.effect("a call that holds one of two permits waits for the other where another fiber holds it", () =>
    Effect.gen(function*() {
      for (const nested of ["die", "bypass"] as const) {
        const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 2, onReentry: nested }))
        yield* fork(throttle.withPermit(Effect.sleep(30)))
        const fiber = yield* fork(throttle.withPermit(throttle.withPermit(now)))
        yield* TestClock.adjust(30)
        assert.deepStrictEqual(fiber.pollUnsafe(), Exit.succeed(yield* now))
        assertIdle(throttle)
      }
    }))

  it.effect("weighted: it waits while others hold enough, and dies where they do not", () =>
    Effect.gen(function*() {
      const cases: ReadonlyArray<readonly [held: number, others: number, asked: number, dies: boolean]> = [
        [1, 0, 5, true],
        [2, 3, 3, false],
        [2, 3, 4, true],
        [4, 1, 1, false],
        [4, 1, 2, true],
        [5, 0, 1, true],
        [3, 1, 2, false]
      ]
      for (const [held, others, asked, dies] of cases) {
        const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 5 }))
        if (others > 0) yield* fork(throttle.withPermits(Effect.sleep(30), others))
        const fiber = yield* fork(throttle.withPermits(throttle.withPermits(Effect.void, asked), held))
        yield* TestClock.adjust(30)
        const exit = fiber.pollUnsafe()
        assert.strictEqual(defectOf(exit) !== undefined, dies, `${held} held, ${others} by others, ${asked} asked`)
        assert.isDefined(exit)
        assertIdle(throttle)
      }
    }))

  it.effect("pass: a heavy inner call runs without what is missing", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 5, onReentry: "bypass" }))
      yield* throttle.withPermits(
        Effect.gen(function*() {
          assert.strictEqual(yield* throttle.withPermits(Effect.succeed("in"), 4), "in")
          assert.strictEqual(onlyFreeOf(throttle), 3)
          // One that fits asks as ever.
          yield* throttle.withPermits(
            Effect.sync(() => assert.strictEqual(onlyFreeOf(throttle), 0)),
            3
          )
        }),
        2
      )
      assertIdle(throttle)
    }))

  it.effect("more than there ever is fails as ever", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 5, onReentry: "bypass" }))
      const exit = yield* Effect.exit(throttle.withPermit(throttle.withPermits(Effect.void, 6)))
      assert.strictEqual(reasonOf(exit), "PermitsExceedCapacity")
      assertIdle(throttle)
    }))

  it.effect("behind a heavy head that needs what it holds it waits, since that may give up, or passes", () =>
    Effect.gen(function*() {
      for (const nested of ["die", "bypass"] as const) {
        const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 2, onReentry: nested }))
        const inner = yield* Effect.forkChild(
          throttle.withPermit(Effect.andThen(Effect.sleep(10), throttle.withPermit(now))),
          { startImmediately: true }
        )
        const heavy = yield* fork(throttle.withPermits(now, 2))
        const began = yield* now
        yield* TestClock.adjust(10)
        const exit = inner.pollUnsafe()
        if (nested === "die") {
          assert.isUndefined(exit)
          yield* Fiber.interrupt(heavy)
          yield* TestClock.adjust(0)
          assert.deepStrictEqual(inner.pollUnsafe(), Exit.succeed(began + 10))
        } else {
          assert.deepStrictEqual(exit, Exit.succeed(began + 10))
          yield* TestClock.adjust(0)
          assert.isTrue(Exit.isSuccess(heavy.pollUnsafe()!))
        }
        assertIdle(throttle)
      }
    }))

  it.effect("behind a heavy waiter that is not the head it waits: only the head is looked at", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 2 }))
      yield* fork(throttle.withPermit(Effect.sleep(50)))
      const inner = yield* fork(throttle.withPermit(Effect.andThen(Effect.sleep(10), throttle.withPermit(Effect.void))))
      // The head waits for what the other holds, the heavy one behind it for all.
      yield* fork(throttle.withPermit(Effect.void))
      yield* fork(throttle.withPermits(Effect.void, 2))
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(inner.pollUnsafe())
      yield* Fiber.interrupt(inner)
      yield* TestClock.adjust("1 hour")
      assertIdle(throttle)
    }))

  it.effect("two calls that each request what the other holds wait for each other: that is no re-entry", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 2 }))
      const nest = throttle.withPermit(Effect.andThen(Effect.sleep(10), throttle.withPermit(Effect.void)))
      const fibers = yield* Effect.all([fork(nest), fork(nest)])
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* throttle.statistics).waiting, 2)
      yield* Fiber.interruptAll(fibers)
      assertIdle(throttle)
    }))

  it.effect("an inner call of cost 0 behind a waiting call with its own timeout starts when that call times out", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.all([
        Throttle.concurrency({ limit: 1 }),
        Throttle.tokenBucket({ capacity: 5, refill: 1, unit: "tokens" })
      ]))
      const tokens = throttle.withPermits(now, { permits: 0, tokens: 1 })
      const inner = yield* fork(throttle.withPermit(Effect.andThen(Effect.sleep(10), tokens)))
      yield* fork(Effect.timeoutOption(throttle.withPermit(Effect.void), 100))
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(inner.pollUnsafe(), Exit.succeed(100))
      assertIdle(throttle)
    }))

  it.effect("an inner call starts when another fiber cancels the permit of the outer one", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      const inner = yield* fork(
        throttle.usePermits(1)((permit) =>
          Effect.andThen(
            Effect.forkChild(Effect.delay(permit.cancel, "1 second"), { startImmediately: true }),
            throttle.withPermit(now)
          )
        )
      )
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(inner.pollUnsafe(), Exit.succeed(1_000))
      assertIdle(throttle)
    }))

  it.effect("other units are other permits", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.all([
        Throttle.concurrency({ limit: 1, name: "calls" }),
        Throttle.concurrency({ limit: 1, name: "slots", unit: "slots" })
      ], { name: "both" }))
      const inner = throttle.withPermits(Effect.succeed("in"), { permits: 0, slots: 1 })
      assert.strictEqual(yield* throttle.withPermit(inner), "in")
      const exit = yield* Effect.exit(throttle.withPermits(inner, { permits: 1, slots: 1 }))
      assert.include(defectOf(exit)!.message, `"slots"`)
      assertIdle(throttle)
    }))

  it.effect("pass of one part does not open another", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.all([
        Throttle.concurrency({ limit: 2, name: "open", onReentry: "bypass" }),
        Throttle.concurrency({ limit: 1, name: "shut" })
      ]))
      assert.include(
        defectOf(yield* Effect.exit(throttle.withPermit(throttle.withPermit(Effect.void))))!.message,
        `"shut"`
      )
      assertIdle(throttle)
    }))

  it.effect("where one part would pass and another die, it dies", () =>
    Effect.gen(function*() {
      for (const shutFirst of [true, false]) {
        const parts = [
          Throttle.concurrency({ limit: 1, name: "open", onReentry: "bypass" }),
          Throttle.concurrency({ limit: 1, name: "shut" })
        ]
        const throttle = yield* Throttle.make(Throttle.all(shutFirst ? parts.toReversed() : parts))
        const exit = yield* Effect.exit(throttle.withPermit(throttle.withPermit(Effect.void)))
        assert.include(defectOf(exit)?.message ?? "it passed", `"shut"`, shutFirst ? "shut first" : "shut last")
        assertIdle(throttle)
      }
    }))

  it.effect("of timing policies there is nothing to hold", () =>
    Effect.gen(function*() {
      const limited = Throttle.rate({ limit: 10 })
      const fiber = yield* fork(limited(limited(now)))
      yield* TestClock.adjust(100)
      assert.strictEqual(yield* Fiber.join(fiber), 100)
    }))

  it.effect("while it is paused, an inner call that finds its permits free waits for the end of the pause", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 2 }))
      const fiber = yield* fork(throttle.withPermit(Effect.andThen(throttle.pause(50), throttle.withPermit(now))))
      yield* TestClock.adjust(50)
      assert.strictEqual(yield* Fiber.join(fiber), 50)
    }))

  it.effect("a permit whose scope is closed is held no more", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      const scope = yield* Scope.make()
      yield* Scope.provide(throttle.takeScoped(), scope)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* throttle.withPermit(Effect.succeed(1)), 1)
      const permit = yield* throttle.takeScoped()
      yield* permit.cancel
      assert.strictEqual(yield* throttle.withPermit(Effect.succeed(2)), 2)
    }))

  it.effect("an update may decide otherwise", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      const nest = throttle.withPermit(throttle.withPermit(Effect.succeed("in")))
      assert.isDefined(defectOf(yield* Effect.exit(nest)))
      yield* throttle.update(Throttle.concurrency({ limit: 1, onReentry: "bypass" }))
      assert.strictEqual(yield* nest, "in")
      yield* throttle.update(Throttle.concurrency({ limit: 2 }))
      assert.strictEqual(yield* nest, "in")
      assertIdle(throttle)
    }))

  it.effect("the generic service and a Service class", () =>
    Effect.gen(function*() {
      class Api extends Throttle.Service<Api>()("app/Api", Throttle.concurrency({ limit: 1 })) {}
      const exit = yield* Effect.exit(Effect.provide(Api.withPermit(Api.withPermit(Effect.void)), Api.layer))
      assert.include(defectOf(exit)!.message, `throttle "app/Api"`)
      const generic = Throttle.withPermit(Throttle.withPermits(Effect.void, 1))
      const passing = Throttle.concurrency({ limit: 1, onReentry: "bypass" })
      assert.deepStrictEqual(yield* Effect.exit(Effect.provide(generic, passing)), Exit.void)
    }))
})

describe("onReentry as data", () => {
  it("is left out of the data unless it is given", () => {
    assert.notProperty(Throttle.concurrency({ limit: 1 }).data, "onReentry")
    assert.notProperty(Throttle.spacing({ interval: 1, from: "end" }).data, "onReentry")
    assert.notProperty(Throttle.concurrency({ limit: 1, onReentry: undefined }).data, "onReentry")
    for (const nested of ["die", "bypass"] as const) {
      assert.deepStrictEqual(Throttle.concurrency({ limit: 1, onReentry: nested }).data, {
        _tag: "Concurrency",
        limit: 1,
        onReentry: nested
      })
      assert.deepStrictEqual(Throttle.spacing({ interval: 5, from: "end", onReentry: nested }).data, {
        _tag: "Spacing",
        interval: 5,
        align: false,
        from: "end",
        onReentry: nested
      })
    }
  })

  it.effect("comes back from data and from outside", () =>
    Effect.gen(function*() {
      for (
        const policy of [
          Throttle.concurrency({ limit: 1, onReentry: "bypass" }),
          Throttle.all([Throttle.spacing({ interval: 5, from: "end", onReentry: "bypass" })])
        ]
      ) {
        const json = JSON.parse(JSON.stringify(policy.data))
        for (const back of [Throttle.fromData(json), yield* Throttle.decode(json)]) {
          assert.deepStrictEqual(back.data, policy.data)
          assert.strictEqual(yield* back(back(Effect.succeed("in"))), "in")
        }
      }
    }))

  it.effect("is one of two words", () =>
    Effect.gen(function*() {
      for (const nested of ["wait", "", true, null]) {
        assert.throws(
          () => Throttle.concurrency({ limit: 1, onReentry: nested as any }),
          RangeError,
          /Throttle\.concurrency: "onReentry" must be "die" or "bypass", received/
        )
        assert.throws(
          () => Throttle.spacing({ interval: 1, from: "end", onReentry: nested as any }),
          RangeError,
          /Throttle\.spacing: "onReentry" must be "die" or "bypass", received/
        )
        const error = yield* Effect.flip(Throttle.decode({ _tag: "Concurrency", limit: 1, onReentry: nested }))
        assert.strictEqual(error._tag, "SchemaError")
      }
      for (const data of [{ _tag: "Rate", limit: 1 }, { _tag: "Window", limit: 1, per: 1 }, { _tag: "None" }]) {
        assert.throws(
          () => Throttle.fromData({ ...data, onReentry: "die" } as any),
          RangeError,
          /unknown option "onReentry"/
        )
        yield* Effect.flip(Throttle.decode({ ...data, onReentry: "die" }))
      }
    }))

  it("does not change the policy's sentence", () => {
    assert.strictEqual(Throttle.describe(Throttle.concurrency({ limit: 5, onReentry: "bypass" })), "at most 5 at once")
    assert.strictEqual(
      Throttle.describe(Throttle.spacing({ interval: 5, from: "end", onReentry: "bypass" })),
      "5 milliseconds from an end to the next start"
    )
  })
})
