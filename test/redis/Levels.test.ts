/**
 * Levels on a store: a call that throttles whose keys are in one hash slot must admit, all or none, in one decision.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Logger, Option, Scope } from "effect"
import { Throttle } from "effect-throttle"
import { MemoryStore, RedisThrottle, ThrottleStore } from "effect-throttle/redis"
import { TestClock } from "effect/testing"
import { errorOf, estimateOf, fork, now, rangeErrorOf, reasonOf, settled, throttleErrorOf } from "../utils/kit.ts"

const test = (name: string, body: () => Effect.Effect<unknown, unknown, Scope.Scope | ThrottleStore.ThrottleStore>) =>
  it.effect(name, () => Effect.scoped(body()).pipe(Effect.provide(MemoryStore.layer), Effect.provide(Logger.layer([]))))

const keys = ["{acme}:ada", "{acme}", "{acme}:all"]

/** Throttles of one hash slot, from the narrowest to the widest. */
const made = (policies: ReadonlyArray<Throttle.Policy<any>>, options: Partial<RedisThrottle.Options> = {}) =>
  Effect.forEach(policies, (policy, i) => RedisThrottle.make(policy, { key: keys[i]!, ...options }))

const statisticsOf = (throttles: ReadonlyArray<Throttle.Throttle>, name: "admitted" | "waiting" | "running") =>
  Effect.forEach(throttles, ({ statistics }) => Effect.map(statistics, (all) => all[name]))

const remainingOf = (throttles: ReadonlyArray<Throttle.Throttle>) =>
  Effect.map(
    Effect.forEach(throttles, ({ remaining }) => remaining),
    (all) => all.flat().map(({ remaining }) => remaining)
  )

const noted = () => {
  const started: Array<readonly [name: string, at: number]> = []
  const note = (name: string, runs = 0) =>
    Effect.flatMap(now, (at) => {
      started.push([name, Math.round(at)])
      return runs === 0 ? Effect.void : Effect.sleep(runs)
    })
  return { note, started }
}

/** Passes time in small steps, as real time does. */
const pass = (millis: number) =>
  Effect.forEach(Array.from({ length: millis / 5 }), () => TestClock.adjust("5 millis"), { discard: true })

describe("all or none", () => {
  test("a call is charged by every level when it starts, and by none before", () =>
    Effect.gen(function*() {
      const throttles = yield* made([Throttle.rate({ limit: 10 }), Throttle.rate({ limit: 1 })])
      const both = Throttle.levels(throttles)
      const { note, started } = noted()
      yield* both.withPermit(note("first"))
      const second = yield* fork(both.withPermit(note("second")))
      yield* TestClock.adjust("999 millis")
      assert.deepStrictEqual(yield* statisticsOf(throttles, "admitted"), [1, 1])
      const [elsewhere] = yield* made([Throttle.rate({ limit: 10 })])
      assert.strictEqual(yield* estimateOf(elsewhere!), 0)
      yield* TestClock.adjust("1 millis")
      yield* Fiber.join(second)
      assert.deepStrictEqual(started, [["first", 0], ["second", 1_000]])
      assert.deepStrictEqual(yield* statisticsOf(throttles, "admitted"), [2, 2])
      // The narrow one is charged when the call starts, not when it was ready there.
      assert.strictEqual(yield* estimateOf(throttles[0]!), 100)
      assert.deepStrictEqual(yield* statisticsOf(throttles, "waiting"), [0, 0])
    }))

  test("a call that the widest level rejects is charged by none", () =>
    Effect.gen(function*() {
      const throttles = yield* made([
        Throttle.window({ limit: 5, per: "1 day" }),
        Throttle.rate({ limit: 1, maxQueue: 0, name: "everybody" })
      ])
      const both = Throttle.levels(throttles)
      yield* both.withPermit(Effect.void)
      const { reason } = throttleErrorOf(yield* Effect.exit(both.withPermit(Effect.void)))
      assert.deepStrictEqual([reason._tag, reason.throttle], ["QueueFull", "everybody"])
      assert.deepStrictEqual(yield* remainingOf(throttles), [4, 0])
      assert.deepStrictEqual(yield* statisticsOf(throttles, "waiting"), [0, 0])
    }))

  test("permits are leased at every level until the end", () =>
    Effect.gen(function*() {
      const throttles = yield* made([Throttle.concurrency({ limit: 1 }), Throttle.concurrency({ limit: 5 })])
      const both = Throttle.levels(throttles)
      const { note, started } = noted()
      for (const name of ["a", "b", "c"]) yield* fork(both.withPermit(note(name, 100)))
      yield* settled
      assert.deepStrictEqual(yield* statisticsOf(throttles, "running"), [1, 1])
      yield* pass(1_000)
      assert.deepStrictEqual(started, [["a", 0], ["b", 100], ["c", 200]])
      assert.deepStrictEqual(yield* statisticsOf(throttles, "running"), [0, 0])
      assert.deepStrictEqual(yield* remainingOf(throttles), [1, 5])
    }))

  test("settle and cancel apply to every level", () =>
    Effect.gen(function*() {
      const throttles = yield* made([
        Throttle.window({ limit: 10, per: "1 day" }),
        Throttle.window({ limit: 100, per: "1 day", unit: "tokens" })
      ])
      const both = Throttle.levels(throttles)
      yield* both.usePermits({ permits: 4, tokens: 50 })((permit) => permit.settle({ tokens: 20 }))
      yield* both.usePermits({ permits: 4, tokens: 50 })((permit) => permit.cancel)
      yield* Effect.scoped(Effect.flatMap(both.takeScoped({ tokens: 10 }), (permit) => permit.settle({ tokens: 30 })))
      yield* settled
      assert.deepStrictEqual((yield* both.remaining).map(({ remaining }) => remaining), [5, 50])
    }))

  test("two processes compete: no level is charged for a call that did not start", () =>
    Effect.gen(function*() {
      const policies = [
        Throttle.rate({ limit: 5, burst: 2 }),
        Throttle.window({ limit: 9, per: "1 second" }),
        Throttle.concurrency({ limit: 2 })
      ]
      const [here, there] = [yield* made(policies), yield* made(policies)]
      const { note, started } = noted()
      for (let i = 0; i < 10; i++) {
        yield* fork(Throttle.levels(here).withPermit(note("here", 30)))
        yield* fork(Throttle.levels(there).withPermit(note("there", 30)))
      }
      yield* pass(5_000)
      assert.strictEqual(started.length, 20)
      assert.deepStrictEqual(yield* statisticsOf([...here, ...there], "admitted"), [10, 10, 10, 10, 10, 10])
      assert.deepStrictEqual(yield* statisticsOf([...here, ...there], "running"), [0, 0, 0, 0, 0, 0])
      // 3 at once, and 5 per second: none was lost
      assert.isAtMost(started.at(-1)![1], 3_400 + 40)
    }))
})

describe("waits", () => {
  test("a call that its own user's limit holds back does not hold back other users", () =>
    Effect.gen(function*() {
      const users = yield* RedisThrottle.makeMap({
        name: "users",
        lookup: (_user: string) => Throttle.rate({ limit: 1 })
      })
      const [, organisation] = yield* made([Throttle.rate({ limit: 1 }), Throttle.rate({ limit: 10 })])
      const { note, started } = noted()
      const call = (user: string) =>
        fork(Throttle.levels([users.get(`{acme}:${user}`), organisation!]).withPermit(note(user)))
      for (let i = 0; i < 3; i++) yield* call("ada")
      yield* call("grace")
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(started, [["ada", 0], ["grace", 100], ["ada", 1_000], ["ada", 2_000]])
      assert.deepInclude(yield* users.statistics, { waiting: 0, admitted: 4, keys: 0 })
    }))

  test("nor does one whose user has all permits in use", () =>
    Effect.gen(function*() {
      const one = Throttle.concurrency({ limit: 1 })
      const users = yield* RedisThrottle.makeMap({ name: "users", lookup: (_user: string) => one })
      const [, organisation] = yield* made([one, Throttle.concurrency({ limit: 2 })])
      const { note, started } = noted()
      const call = (user: string) =>
        fork(Throttle.levels([users.get(`{acme}:${user}`), organisation!]).withPermit(note(user, 500)))
      yield* call("ada")
      yield* call("ada")
      yield* call("grace")
      yield* pass(400)
      assert.deepStrictEqual(started, [["ada", 0], ["grace", 0]])
      yield* pass(800)
      assert.deepStrictEqual(started[2], ["ada", 500])
      yield* pass(800)
      assert.deepInclude(yield* users.statistics, { waiting: 0, running: 0, keys: 0 })
    }))

  test("calls of a wide level start in order of arrival, plain ones too", () =>
    Effect.gen(function*() {
      const throttles = yield* made([Throttle.rate({ limit: 10, burst: 9 }), Throttle.rate({ limit: 10 })])
      const both = Throttle.levels(throttles)
      const { note, started } = noted()
      yield* fork(both.withPermit(note("a")))
      yield* settled
      yield* fork(both.withPermit(note("b")))
      yield* settled
      yield* fork(throttles[1]!.withPermit(note("plain")))
      yield* fork(both.withPermit(note("c")))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(started, [["a", 0], ["b", 100], ["plain", 200], ["c", 300]])
    }))

  test("a call of another user does not pass those that wait for the organisation", () =>
    Effect.gen(function*() {
      const users = yield* RedisThrottle.makeMap({
        name: "users",
        lookup: (_user: string) => Throttle.rate({ limit: 9 })
      })
      const [, organisation] = yield* made([Throttle.rate({ limit: 1 }), Throttle.rate({ limit: 1 })])
      const { note, started } = noted()
      const names = ["a", "b", "c", "d"]
      for (const [i, user] of names.entries()) {
        yield* fork(
          Effect.delay(Throttle.levels([users.get(`{acme}:${user}`), organisation!]).withPermit(note(user)), 300 * i)
        )
      }
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(started, [["a", 0], ["b", 1_000], ["c", 2_000], ["d", 3_000]])
    }))

  test("a pause of a level that was ready sends the call back: it leaves the wider queue", () =>
    Effect.gen(function*() {
      const throttles = yield* made([Throttle.rate({ limit: 10 }), Throttle.rate({ limit: 1 })])
      const [narrow, wide] = throttles
      const both = Throttle.levels(throttles)
      const { note, started } = noted()
      yield* both.withPermit(note("first"))
      yield* TestClock.adjust("500 millis")
      yield* fork(both.withPermit(note("second")))
      yield* settled
      yield* narrow!.pause("5 seconds")
      yield* fork(Effect.delay(wide!.withPermit(note("plain")), "600 millis"))
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(started, [["first", 0], ["plain", 1_100], ["second", 5_500]])
    }))

  test("a timeout of the narrow level ends a wait at the wide one", () =>
    Effect.gen(function*() {
      const throttles = yield* made([
        Throttle.rate({ limit: 10, timeout: "300 millis", name: "narrow" }),
        Throttle.rate({ limit: 1 })
      ])
      const both = Throttle.levels(throttles)
      yield* both.withPermit(Effect.void)
      yield* TestClock.adjust("100 millis")
      const second = yield* fork(both.withPermit(Effect.void))
      yield* TestClock.adjust("299 millis")
      assert.isUndefined(second.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(reasonOf(second.pollUnsafe()), "TimedOut")
      assert.deepStrictEqual(yield* statisticsOf(throttles, "waiting"), [0, 0])
      yield* TestClock.adjust("600 millis")
      assert.strictEqual(yield* estimateOf(throttles[1]!), 0)
    }))

  test("an interrupted call leaves every queue, and the next one starts when it is due", () =>
    Effect.gen(function*() {
      const throttles = yield* made([
        Throttle.rate({ limit: 10 }),
        Throttle.rate({ limit: 5 }),
        Throttle.rate({ limit: 1 })
      ])
      const all = Throttle.levels(throttles)
      const { note, started } = noted()
      yield* all.withPermit(Effect.void)
      yield* TestClock.adjust("500 millis")
      const second = yield* fork(all.withPermit(note("second")))
      yield* fork(all.withPermit(note("third")))
      yield* TestClock.adjust("100 millis")
      yield* Fiber.interrupt(second)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(started, [["third", 1_000]])
      assert.deepStrictEqual(yield* statisticsOf(throttles, "waiting"), [0, 0, 0])
    }))

  test("orders of levels are kept: an urgent call is first at each", () =>
    Effect.gen(function*() {
      const throttles = yield* made([
        Throttle.rate({ limit: 10, order: "priority", ageing: "1 minute" }),
        Throttle.rate({ limit: 1, order: "priority", ageing: "1 minute" })
      ])
      const { note, started } = noted()
      const call = (name: string, priority: number) =>
        fork(Throttle.levels(throttles).withPermit(note(name)).pipe(Throttle.withCaller({ priority })))
      yield* call("first", 0)
      yield* settled
      for (const name of ["a", "b"]) yield* call(name, 0)
      yield* settled
      yield* call("urgent", 5)
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(started.map(([name]) => name), ["first", "urgent", "a", "b"])
    }))

  test("spacing on the clock: a call starts at its instants", () =>
    Effect.gen(function*() {
      const throttles = yield* made([
        Throttle.rate({ limit: 100, burst: 9 }),
        Throttle.spacing({ interval: "500 millis", align: true })
      ])
      const { note, started } = noted()
      yield* TestClock.adjust("100 millis")
      for (const name of ["a", "b"]) yield* fork(Throttle.levels(throttles).withPermit(note(name)))
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(started, [["a", 500], ["b", 1_000]])
    }))

  test("one level is the plain throttle", () =>
    Effect.gen(function*() {
      const policies = [
        Throttle.rate({ limit: 10, burst: 2 }),
        Throttle.window({ limit: 3, per: "1 second" }),
        Throttle.spacing({ interval: "70 millis" }),
        Throttle.all([Throttle.rate({ limit: 10 }), Throttle.window({ limit: 5, per: "1 second" })], { maxQueue: 4 })
      ]
      for (const [i, policy] of policies.entries()) {
        const plain = yield* RedisThrottle.make(policy, { key: `{plain}${i}` })
        const single = Throttle.levels([yield* RedisThrottle.make(policy, { key: `{single}${i}` })])
        const starts = [plain, single].map(() => [] as Array<unknown>)
        for (let n = 0; n < 12; n++) {
          for (const [j, throttle] of [plain, single].entries()) {
            const began = yield* now
            const call = throttle.withPermits(Effect.map(now, (at) => void starts[j]!.push([n, at - began])), 1 + n % 2)
            yield* fork(
              Effect.tapError(call, (error) => Effect.sync(() => starts[j]!.push([n, errorOf(Exit.fail(error))])))
            )
          }
          yield* TestClock.adjust(37)
        }
        yield* TestClock.adjust("20 seconds")
        const shown = (all: ReadonlyArray<unknown>) =>
          all.map((one) => JSON.stringify(one).replace(/"throttle":"[^"]*",?/, ""))
        assert.deepStrictEqual(shown(starts[1]!), shown(starts[0]!), Throttle.describe(policy))
      }
    }))
})

describe("changes by another process", () => {
  const [policy, wide] = [Throttle.window({ limit: 5, per: "1 day" }), Throttle.window({ limit: 1, per: "10 seconds" })]

  test("a reset lets the next call start, and a pause holds it back", () =>
    Effect.gen(function*() {
      const [here, there] = [yield* made([policy, wide]), yield* made([policy, wide])]
      const both = Throttle.levels(here)
      assert.isTrue(yield* both.allow())
      assert.isFalse(yield* both.allow())
      yield* there[1]!.reset
      assert.isTrue(yield* both.allow())
      yield* there[1]!.reset
      yield* there[0]!.pause("1 second")
      assert.isFalse(yield* both.allow())
      const { note, started } = noted()
      yield* fork(both.withPermit(note("after the pause")))
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(started, [["after the pause", 1_000]])
    }))

  test("a resume is noticed within a quarter of a second", () =>
    Effect.gen(function*() {
      const [here, there] = [yield* made([policy, wide]), yield* made([policy, wide])]
      yield* there[0]!.pause("1 hour")
      const { note, started } = noted()
      yield* fork(Throttle.levels(here).withPermit(note("resumed")))
      yield* TestClock.adjust("1 second")
      yield* there[0]!.resume
      yield* TestClock.adjust("250 millis")
      assert.strictEqual(started.length, 1)
    }))

  test("an update or a reset of this process lets a waiting call start at once", () =>
    Effect.gen(function*() {
      const here = yield* made([policy, wide])
      const both = Throttle.levels(here)
      const { note, started } = noted()
      yield* both.withPermit(Effect.void)
      yield* fork(both.withPermit(note("updated")))
      yield* TestClock.adjust("1 second")
      yield* here[1]!.update(Throttle.window({ limit: 2, per: "10 seconds" }))
      yield* settled
      yield* fork(both.withPermit(note("reset")))
      yield* TestClock.adjust("1 second")
      yield* here[1]!.reset
      yield* settled
      assert.deepStrictEqual(started, [["updated", 1_000], ["reset", 2_000]])
    }))
})

describe("other operations", () => {
  test("withPermitsIfAvailable, allow, wait, estimateWait", () =>
    Effect.gen(function*() {
      const throttles = yield* made([Throttle.rate({ limit: 1 }), Throttle.rate({ limit: 2, burst: 5 })])
      const both = Throttle.levels(throttles)
      assert.deepStrictEqual(yield* both.withPermitsIfAvailable(Effect.succeed("ran"), 1), Option.some("ran"))
      assert.deepStrictEqual(yield* both.withPermitsIfAvailable(Effect.succeed("ran"), 1), Option.none())
      assert.isFalse(yield* both.allow())
      assert.strictEqual(yield* Effect.map(both.estimateWait(), (wait) => Option.isSome(wait)), true)
      const waiting = yield* fork(both.wait())
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(waiting)
      assert.deepStrictEqual(yield* statisticsOf(throttles, "admitted"), [2, 2])
    }))

  test("the lease of a permit: the narrowest fence, lost as soon as any is lost", () =>
    Effect.gen(function*() {
      const throttles = yield* made([Throttle.concurrency({ limit: 1 }), Throttle.concurrency({ limit: 5 })])
      const permit = yield* Throttle.levels(throttles).takeScoped()
      const lease = Option.getOrThrow(RedisThrottle.leaseOf(permit))
      assert.isAbove(lease.fence, 0)
      const inside = yield* Effect.scoped(Effect.gen(function*() {
        const scope = yield* Scope.make()
        const closing = yield* Scope.provide(
          made([Throttle.concurrency({ limit: 2 })], { key: "{acme}:closing" }),
          scope
        )
        const one = yield* Throttle.levels([closing[0]!, throttles[1]!]).takeScoped()
        const lost = yield* fork(Option.getOrThrow(RedisThrottle.leaseOf(one)).lost)
        yield* Scope.close(scope, Exit.void)
        yield* settled
        return lost.pollUnsafe()
      }))
      assert.strictEqual(reasonOf(inside), "LeaseLost")
    }))

  test("work is interrupted when the lease of any level is lost", () =>
    Effect.gen(function*() {
      const [narrow] = yield* made([Throttle.concurrency({ limit: 1 })])
      const scope = yield* Scope.make()
      const wide = yield* Scope.provide(
        RedisThrottle.make(Throttle.concurrency({ limit: 1 }), { key: "{acme}" }),
        scope
      )
      const work = yield* fork(Throttle.levels([narrow!, wide]).withPermit(Effect.never))
      yield* settled
      yield* Scope.close(scope, Exit.void)
      yield* settled
      assert.strictEqual(reasonOf(work.pollUnsafe()), "LeaseLost")
      assert.deepStrictEqual(yield* remainingOf([narrow!]), [1])
    }))

  test("a call inside of a call for the same permits bypasses or dies, as with the plain throttle", () =>
    Effect.gen(function*() {
      for (const onReentry of ["bypass", "die"] as const) {
        const throttles = yield* made([
          Throttle.rate({ limit: 100, burst: 9 }),
          Throttle.concurrency({ limit: 1, onReentry })
        ], { prefix: onReentry })
        const both = Throttle.levels(throttles)
        const exit = yield* fork(Effect.exit(both.withPermit(both.withPermit(Effect.succeed("inner")))))
        yield* pass(1_000)
        const result = yield* Fiber.join(exit)
        if (onReentry === "bypass") assert.deepStrictEqual(result, Exit.succeed("inner"))
        else assert.isTrue(Exit.isFailure(result))
      }
    }))

  test("closing a level interrupts the calls that wait at another", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const narrow = yield* Scope.provide(RedisThrottle.make(Throttle.rate({ limit: 9 }), { key: "{acme}:ada" }), scope)
      const wide = yield* RedisThrottle.make(Throttle.rate({ limit: 1 }), { key: "{acme}" })
      const both = Throttle.levels([narrow, wide])
      yield* both.withPermit(Effect.void)
      const second = yield* fork(both.withPermit(Effect.void))
      yield* TestClock.adjust("200 millis")
      yield* Scope.close(scope, Exit.void)
      yield* settled
      const exit = second.pollUnsafe()
      assert.isTrue(exit !== undefined && Exit.hasInterrupts(exit))
      assert.deepStrictEqual(yield* statisticsOf([wide], "waiting"), [0])
    }))

  test("drain of one level refuses newcomers, and lets the waiting ones finish", () =>
    Effect.gen(function*() {
      const throttles = yield* made([Throttle.rate({ limit: 10 }), Throttle.rate({ limit: 1 })])
      const both = Throttle.levels(throttles)
      const { note, started } = noted()
      yield* both.withPermit(note("first"))
      yield* fork(both.withPermit(note("second")))
      yield* TestClock.adjust("200 millis")
      const drained = yield* fork(throttles[1]!.drain("5 seconds"))
      yield* settled
      assert.strictEqual(reasonOf(yield* Effect.exit(both.withPermit(Effect.void))), "Draining")
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(yield* Fiber.join(drained), 0)
      assert.deepStrictEqual(started, [["first", 0], ["second", 1_000]])
    }))
})

describe("what cannot be levels", () => {
  const message = (f: () => unknown): string => {
    try {
      f()
    } catch (error) {
      assert.instanceOf(error, RangeError)
      return (error as RangeError).message
    }
    return assert.fail("no error")
  }

  test("keys of different hash slots, other stores, throttles of this process, the same throttle twice", () =>
    Effect.gen(function*() {
      const rate = Throttle.rate({ limit: 1 })
      const users = yield* RedisThrottle.makeMap({ name: "users", lookup: (_user: string) => rate })
      const organisation = yield* RedisThrottle.make(rate, { key: "acme" })
      const here = yield* Throttle.make(rate)
      const elsewhere = yield* Effect.provide(RedisThrottle.make(rate, { key: "acme" }), Layer.fresh(MemoryStore.layer))
      assert.strictEqual(
        message(() => Throttle.levels([users.get("ada"), organisation])),
        "Throttle.levels: all levels must be in one hash slot of the store, received the keys \"throttle:users:{ada}\" and " +
          "\"throttle:{acme}\"; begin the keys with one hash tag, such as \"{acme}:ada\" and \"{acme}\""
      )
      assert.include(
        message(() => Throttle.levels([users.get("{acme}:ada"), here])),
        "\"throttles[1]\" must be on the store"
      )
      assert.include(message(() => Throttle.levels([here, organisation])), "\"throttles[0]\" must be on the store")
      assert.include(message(() => Throttle.levels([users.get("{acme}:ada"), elsewhere])), "one connection")
      assert.include(message(() => Throttle.levels([organisation, organisation])), "twice")
      Throttle.levels([users.get("{acme}:ada"), organisation])
    }))

  test("a store that cannot decide about several keys", () =>
    Effect.gen(function*() {
      const { decideTogether: _, ...store } = yield* ThrottleStore.ThrottleStore
      const one = yield* Effect.provideService(
        RedisThrottle.make(Throttle.rate({ limit: 1 }), { key: "one" }),
        ThrottleStore.ThrottleStore,
        store
      )
      assert.include(message(() => Throttle.levels([one])), "cannot decide about several keys")
    }))

  test("a unit that no level counts, and permits with wait", () =>
    Effect.gen(function*() {
      const throttles = yield* made([Throttle.rate({ limit: 1 }), Throttle.concurrency({ limit: 1 })])
      const both = Throttle.levels(throttles)
      assert.include(rangeErrorOf(yield* Effect.exit(both.withPermits(Effect.void, { tokens: 1 }))), "tokens")
      assert.include(rangeErrorOf(yield* Effect.exit(both.wait())), "holds no permits")
    }))
})

describe("without a decision of the store", () => {
  const down = Effect.fail(new ThrottleStore.StoreFailure({ outcome: "unavailable", cause: new Error("down") }))
  const withoutStore = Layer.effect(
    ThrottleStore.ThrottleStore,
    Effect.map(ThrottleStore.ThrottleStore, (store) => ({
      ...store,
      decide: () => down,
      decideTogether: () => down
    }))
  )

  const outage = (
    name: string,
    body: () => Effect.Effect<unknown, unknown, Scope.Scope | ThrottleStore.ThrottleStore>
  ) =>
    it.effect(name, () =>
      Effect.scoped(body()).pipe(
        Effect.provide(withoutStore.pipe(Layer.provide(MemoryStore.layer))),
        Effect.provide(Logger.layer([]))
      ))

  outage("one level says \"fail\": the call fails, whatever the others say", () =>
    Effect.gen(function*() {
      const [narrow] = yield* made([Throttle.rate({ limit: 1 })], { onStoreError: "allow" })
      const wide = yield* RedisThrottle.make(Throttle.rate({ limit: 1 }), { key: "{acme}" })
      const both = Throttle.levels([narrow!, wide])
      assert.strictEqual(reasonOf(yield* Effect.exit(both.withPermit(Effect.void))), "StoreError")
      assert.strictEqual(reasonOf(yield* Effect.exit(both.withPermitsIfAvailable(Effect.void, 1))), "StoreError")
      assert.deepStrictEqual(yield* statisticsOf([narrow!, wide], "waiting"), [0, 0])
    }))

  outage("all say \"allow\": the call starts", () =>
    Effect.gen(function*() {
      const throttles = yield* made([Throttle.rate({ limit: 1 }), Throttle.rate({ limit: 1 })], {
        onStoreError: "allow"
      })
      const both = Throttle.levels(throttles)
      for (let i = 0; i < 5; i++) yield* both.withPermit(Effect.void)
      assert.isTrue(yield* both.allow())
      yield* Effect.scoped(both.takeScoped())
      assert.deepStrictEqual(yield* statisticsOf(throttles, "admitted"), [7, 7])
    }))

  outage("shares: as levels of this process", () =>
    Effect.gen(function*() {
      const users = yield* RedisThrottle.makeMap({
        name: "users",
        lookup: (_user: string) => Throttle.rate({ limit: 2 }),
        onStoreError: { local: 0.5 }
      })
      const [organisation] = yield* made([Throttle.rate({ limit: 20 })], { onStoreError: { local: 0.5 } })
      const { note, started } = noted()
      for (const user of ["ada", "ada", "grace"]) {
        yield* fork(Throttle.levels([users.get(`{acme}:${user}`), organisation!]).withPermit(note(user)))
      }
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(started, [["ada", 0], ["grace", 100], ["ada", 1_000]])
    }))
})
