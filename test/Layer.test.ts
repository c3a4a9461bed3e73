/**
 * A policy is a function and a Layer at once, and one policy value is one budget: where it is shared and where it is fresh.
 */
import { assert, describe, it, vi } from "@effect/vitest"
import {
  Cause,
  Clock,
  Config,
  ConfigProvider,
  Context,
  Duration,
  Effect,
  Exit,
  Fiber,
  FileSystem,
  flow,
  Formatter,
  Layer,
  LayerMap,
  ManagedRuntime,
  Option,
  Path,
  pipe,
  Scope,
  Stdio,
  Stream,
  Terminal
} from "effect"
import { Throttle, ThrottleError } from "effect-throttle"
import { Command } from "effect/cli"
import { ChildProcessSpawner } from "effect/process"
import { AsyncResult, Atom, AtomRegistry } from "effect/reactivity"
import { TestClock } from "effect/testing"
import { inspect } from "node:util"
import { errorOf, fork, now, reasonOf } from "./utils/kit.ts"

const admittedBy = (throttle: Throttle.Throttle) => Effect.map(throttle.statistics, ({ admitted }) => admitted)

/** The number of calls that the provided throttle has admitted. */
const admitted = Effect.flatMap(Throttle.Throttle, admittedBy)

/** The number of calls that the inline throttle of this policy has admitted. */
const admittedInline = (policy: Throttle.Policy<any>) => Effect.flatMap(Throttle.inline(policy), admittedBy)

const call = Throttle.withPermit(Effect.void)

/** A policy that starts at most one, and none later. */
const once = (options?: Throttle.Options) => Throttle.tokenBucket({ capacity: 1, refill: 1, per: "1 day", ...options })

/** Whether a call could start now. */
const isFree = (throttle: Throttle.Throttle) =>
  Effect.map(throttle.estimateWait(), (wait) => Option.isSome(wait) && Duration.isZero(wait.value))

describe("a policy is a Layer", () => {
  const policy = once()

  /** Every way to provide it; each runs the effect where the policy is the only throttle. */
  const ways: Record<
    string,
    <A, E>(self: Effect.Effect<A, E, Throttle.Throttle>) => Effect.Effect<A, E | undefined, Scope.Scope>
  > = {
    "Effect.provide": (self) => self.pipe(Effect.provide(policy)),
    "Effect.provide, data first": (self) => Effect.provide(self, policy),
    "Effect.provide, in an array": (self) => self.pipe(Effect.provide([policy])),
    "Effect.provide, locally": (self) => self.pipe(Effect.provide(policy, { local: true })),
    "Layer.build": (self) => Effect.flatMap(Layer.build(policy), (context) => Effect.provideContext(self, context)),
    "Layer.merge": (self) => self.pipe(Effect.provide(Layer.merge(policy, Path.layer))),
    "Layer.merge, the other way": (self) => self.pipe(Effect.provide(Path.layer.pipe(Layer.merge(policy)))),
    "Layer.mergeAll": (self) => self.pipe(Effect.provide(Layer.mergeAll(Path.layer, policy))),
    "Layer.provide": (self) =>
      Effect.flatMap(
        Layer.build(Layer.effectContext(Effect.context<Throttle.Throttle>()).pipe(Layer.provide(policy))),
        (context) => Effect.provideContext(self, context)
      ),
    "Layer.provideMerge": (self) => self.pipe(Effect.provide(Layer.provideMerge(Path.layer, policy))),
    "Layer.provideMerge, as the one that needs": (self) =>
      self.pipe(Effect.provide(policy.pipe(Layer.provideMerge(Path.layer)))),
    "Layer.fresh": (self) => self.pipe(Effect.provide(Layer.fresh(policy))),
    "policy.pipe(Layer.fresh)": (self) => self.pipe(Effect.provide(policy.pipe(Layer.fresh))),
    "pipe(policy, Layer.fresh)": (self) => self.pipe(Effect.provide(pipe(policy, Layer.fresh))),
    "Layer.suspend": (self) => self.pipe(Effect.provide(Layer.suspend(() => policy))),
    "Layer.unwrap": (self) => self.pipe(Effect.provide(Layer.unwrap(Effect.succeed(policy)))),
    "Layer.orDie": (self) => self.pipe(Effect.provide(Layer.orDie(policy))),
    "Layer.tap": (self) => self.pipe(Effect.provide(Layer.tap(policy, () => Effect.void))),
    "Layer.flatMap": (self) => self.pipe(Effect.provide(Layer.flatMap(Path.layer, () => policy))),
    "Layer.catchCause": (self) =>
      self.pipe(Effect.provide(Layer.effectDiscard(Effect.fail(1)).pipe(Layer.catchCause(() => policy)))) as any,
    "Layer.withSpan": (self) => self.pipe(Effect.provide(Layer.withSpan(policy, "build"))),
    "Layer.updateService": (self) =>
      self.pipe(Effect.provide(policy.pipe(Layer.updateService(Scope.Scope as any, (scope: any) => scope)))) as any,
    "its plain Layer": (self) =>
      self.pipe(Effect.provide((policy as any)(undefined) as Layer.Layer<Throttle.Throttle>)),
    "LayerMap.make": (self) =>
      Effect.gen(function*() {
        const map = yield* LayerMap.make((_key: string) => policy)
        return yield* self.pipe(Effect.provide(map.get("key")))
      }),
    "LayerMap.fromRecord": (self) =>
      Effect.gen(function*() {
        const map = yield* LayerMap.fromRecord({ key: policy })
        return yield* self.pipe(Effect.provide(map.get("key")))
      }),
    "LayerMap.Service": (self) => {
      class Map extends LayerMap.Service<Map>()("test/Map", { lookup: (_key: string) => policy }) {}
      return self.pipe(Effect.provide(Map.get("key")), Effect.provide(Map.layer))
    },
    "ManagedRuntime": (self) =>
      Effect.gen(function*() {
        const runtime = yield* Effect.acquireRelease(
          Effect.sync(() => ManagedRuntime.make(policy)),
          (runtime) => runtime.disposeEffect
        )
        return yield* Effect.provideContext(self, yield* runtime.contextEffect)
      }),
    "Service class": (self) => {
      class GitHub extends Throttle.Service<GitHub>()("app/GitHub", policy) {}
      return Effect.flatMap(GitHub, (throttle) => Effect.provideService(self, Throttle.Throttle, throttle)).pipe(
        Effect.provide(GitHub.layer)
      )
    }
  }

  for (const [name, provided] of Object.entries(ways)) {
    it.effect(`${name}: gives a throttle that throttles`, () =>
      Effect.gen(function*() {
        // Twice, for the second build must be as fresh as the first.
        for (let i = 0; i < 2; i++) {
          const [before, after, count] = yield* provided(Effect.gen(function*() {
            const throttle = yield* Throttle.Throttle
            const before = yield* isFree(throttle)
            yield* throttle.withPermit(Effect.void)
            return [before, yield* isFree(throttle), yield* admittedBy(throttle)] as const
          })).pipe(Effect.scoped)
          assert.deepStrictEqual([before, after, count], [true, false, 1])
        }
      }))

    it.effect(`${name}: what is provided is what inline use finds`, () =>
      Effect.gen(function*() {
        const count = yield* provided(Effect.andThen(policy(Effect.void), admitted)).pipe(Effect.scoped)
        assert.strictEqual(count, 1)
        assert.strictEqual(yield* admittedInline(policy), 0, "the inline one was used")
      }))
  }

  it("is one", () => {
    assert.isTrue(Layer.isLayer(policy))
    assert.isFalse(Effect.isEffect(policy))
  })

  it.effect("runs in a ManagedRuntime", () =>
    Effect.promise(async () => {
      const runtime = ManagedRuntime.make(policy)
      await runtime.runPromise(call)
      assert.strictEqual(await runtime.runPromise(admitted), 1)
      await runtime.dispose()
    }))

  it.effect("every combinator gives a plain Layer", () =>
    Effect.sync(() => {
      const plain: Record<string, unknown> = {
        fresh: Layer.fresh(policy),
        merge: Layer.merge(policy, Path.layer),
        provide: Layer.provide(policy, Path.layer),
        provideMerge: Layer.provideMerge(policy, Path.layer),
        orDie: Layer.orDie(policy)
      }
      for (const [name, layer] of Object.entries(plain)) {
        assert.isTrue(Layer.isLayer(layer), name)
        assert.notTypeOf(layer, "function", name)
        assert.isFalse(Throttle.isPolicy(layer), name)
      }
    }))
})

describe("a policy is a function", () => {
  const policy = Throttle.tokenBucket({ capacity: 100, refill: 1 })

  it("like any other", () => {
    assert.isFunction(policy)
    assert.strictEqual(Object.getPrototypeOf(policy), Function.prototype)
    assert.instanceOf(policy, Function)
    for (const member of ["call", "apply", "bind"] as const) {
      assert.strictEqual(policy[member], Function.prototype[member])
    }
  })

  it.effect("in flow, pipe, map and bound", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* flow((n: number) => Effect.succeed(n + 1), policy)(1), 2)
      assert.deepStrictEqual(yield* flow(policy, Effect.asSome)(Effect.succeed(1)), Option.some(1))
      assert.strictEqual(yield* flow(policy, policy)(Effect.succeed(1)), 1)
      assert.strictEqual(yield* pipe(Effect.succeed(1), policy), 1)
      assert.strictEqual(yield* Effect.succeed(1).pipe(policy, policy), 1)
      // Array.map passes an index and the array as well.
      assert.deepStrictEqual(yield* Effect.all([Effect.succeed(1), Effect.succeed(2)].map(policy)), [1, 2])
      assert.strictEqual(yield* (policy.call(undefined, Effect.succeed(1)) as Effect.Effect<number>), 1)
      assert.strictEqual(yield* policy.bind(null)(Effect.succeed(1)), 1)
      assert.strictEqual(yield* admittedInline(policy), 11)
    }))

  it.effect("as the last argument of Effect.fn, which passes the function's own arguments too", () =>
    Effect.gen(function*() {
      const body = function*(id: string, ...more: ReadonlyArray<unknown>) {
        yield* Effect.void
        return `${id} ${more.length}`
      }
      const effectArgument = Effect.succeed("an argument")
      assert.strictEqual(yield* Effect.fn("get")(body, policy)("a"), "a 0")
      assert.strictEqual(yield* Effect.fn("get")(body, policy)("b", 1, effectArgument, policy), "b 3")
      assert.strictEqual(yield* Effect.fn(body, policy)("c", effectArgument), "c 1")
      assert.strictEqual(yield* Effect.fnUntraced(body, policy)("d", effectArgument), "d 1")
      const get = Effect.fn("get")(
        function*(id: number) {
          yield* Effect.void
          return id
        },
        policy,
        Effect.map((id) => id * 2)
      )
      assert.strictEqual(yield* get(21), 42)
      assert.strictEqual(yield* admittedInline(policy), 5)
    }))

  it.effect("what it throttles is any Effect: a service, an exit, a fiber's result", () =>
    Effect.gen(function*() {
      class Name extends Context.Service<Name, string>()("test/Name") {}
      assert.strictEqual(yield* Name.pipe(policy, Effect.provideService(Name, "n")), "n")
      assert.strictEqual(yield* policy(Name).pipe(Effect.provideService(Name, "n")), "n")
      assert.strictEqual(yield* policy(Exit.succeed(1)), 1)
      assert.strictEqual(yield* policy(Clock.currentTimeMillis), 0)
      assert.strictEqual(yield* Effect.flip(policy(Effect.fail("bad"))), "bad")
      assert.strictEqual(yield* admittedInline(policy), 5)
    }))

  it.effect("called with what is no Effect it returns its plain Layer", () =>
    Effect.gen(function*() {
      const called = policy as unknown as (...args: ReadonlyArray<unknown>) => Layer.Layer<Throttle.Throttle>
      const calls = [[], [undefined], [null], [0], ["x"], [{}], [() => Effect.void], [Path.layer], [policy], [{}, 1]]
      for (const args of calls) {
        const layer = called(...args)
        assert.isTrue(Layer.isLayer(layer))
        assert.notTypeOf(layer, "function")
        // The same limiter as the policy's own, where both are in one graph.
        const [count, inline] = yield* Effect.all([Effect.andThen(call, admitted), admittedInline(policy)]).pipe(
          Effect.provide(Layer.merge(policy, layer))
        )
        assert.deepStrictEqual([count, inline], [1, 1])
      }
      assert.strictEqual(yield* admittedInline(policy), 0)
    }))

  it.effect("cli/Command.provide, which calls what is a function, provides it", () =>
    Effect.gen(function*() {
      let count = 0
      const command = Command.make("get", {}, () => Effect.map(Effect.andThen(call, admitted), (n) => void (count = n)))
      const platform = Layer.mergeAll(
        FileSystem.layerNoop({}),
        Path.layer,
        Stdio.layerTest({}),
        Layer.succeed(
          Terminal.Terminal,
          Terminal.make({
            columns: Effect.succeed(80),
            rows: Effect.succeed(24),
            size: Effect.die("unused"),
            readInput: Effect.die("unused"),
            readLine: Effect.die("unused"),
            display: () => Effect.void
          })
        ),
        Layer.succeed(ChildProcessSpawner.ChildProcessSpawner, ChildProcessSpawner.make(() => Effect.die("unused")))
      )
      yield* Command.runWith(command.pipe(Command.provide(policy)), { version: "1.0.0" })([]).pipe(
        Effect.provide(platform)
      )
      assert.strictEqual(count, 1)
      assert.strictEqual(yield* admittedInline(policy), 0)
    }))

  it.effect("Atom.runtime, which calls what is a function, provides it", () =>
    Effect.gen(function*() {
      const registry = AtomRegistry.make()
      const atom = Atom.runtime(policy).atom(Effect.andThen(call, admitted))
      const result = yield* AtomRegistry.getResult(registry, atom)
      assert.strictEqual(result, 1)
      assert.isTrue(AsyncResult.isSuccess(registry.get(atom)))
      registry.dispose()
    }))
})

describe("a policy shows what it is", () => {
  const policy = Throttle.all([Throttle.rate({ limit: 30, burst: 10 }), Throttle.concurrency({ limit: 5 })])
  const sentence = "Throttle(30 per second, burst 10; at most 5 at once)"

  it("as text", () => {
    assert.strictEqual(String(policy), sentence)
    assert.strictEqual(`${policy}`, sentence)
    assert.strictEqual(policy.toString(), sentence)
  })

  it("as JSON", () => {
    const shown = { _id: "effect-throttle/Policy", description: Throttle.describe(policy), data: policy.data }
    assert.deepStrictEqual(JSON.parse(JSON.stringify(policy)), shown)
    assert.deepStrictEqual(JSON.parse(JSON.stringify({ policy })), { policy: shown })
  })

  it("to Node", () => {
    assert.strictEqual(inspect(policy), sentence)
    assert.strictEqual(inspect({ policy }), `{ policy: ${sentence} }`)
    assert.include(Formatter.format({ policy }), "30 per second, burst 10; at most 5 at once")
  })

  it.effect("a context that holds it can be shown", () =>
    Effect.gen(function*() {
      const context = yield* Layer.build(policy)
      assert.include(String(context), "effect-throttle/Throttle")
      assert.isString(JSON.stringify(context))
      assert.isString(inspect(context))
    }))
})

describe("inline", () => {
  const shared = once()

  it.effect.each([1, 2, 3])("each test starts fresh (%s)", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.inline(shared)
      assert.isTrue(yield* isFree(throttle))
      yield* shared(Effect.void)
      assert.isFalse(yield* isFree(throttle))
    }))

  it.effect("one policy value is one limiter for all uses", () =>
    Effect.gen(function*() {
      const limited = Throttle.rate({ limit: 1 })
      const a = Effect.succeed("a").pipe(limited, Effect.andThen(now))
      const b = (n: number) => Effect.map(now, (at) => at * n).pipe(limited)
      const fibers = [yield* fork(a), yield* fork(b(1)), yield* fork(b(1)), yield* fork(Effect.scoped(limited(now)))]
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* Fiber.joinAll(fibers), [0, 1_000, 2_000, 3_000])
    }))

  it.effect("two policy values are two limiters, even with equal data", () =>
    Effect.gen(function*() {
      const [a, b] = [once(), once()]
      yield* a(Effect.void)
      yield* b(Effect.void)
      assert.deepStrictEqual([yield* admittedInline(a), yield* admittedInline(b)], [1, 1])
    }))

  it.effect("a policy that is made in each call throttles nothing: the gotcha", () =>
    Effect.gen(function*() {
      const get = (id: number) => Effect.succeed(id).pipe(once())
      assert.deepStrictEqual(yield* Effect.forEach([1, 2, 3], get), [1, 2, 3])
    }))

  it.effect("each Clock has a limiter of its own", () =>
    Effect.gen(function*() {
      const limited = once()
      const other = yield* TestClock.make()
      const onOther = Effect.provideService(Clock.Clock, other)
      yield* limited(Effect.void)
      yield* limited(Effect.void).pipe(onOther)
      assert.isFalse(yield* Effect.flatMap(Throttle.inline(limited), isFree))
      assert.strictEqual(yield* admittedInline(limited), 1)
      assert.strictEqual(yield* admittedInline(limited).pipe(onOther), 1)
      assert.strictEqual(yield* Throttle.inline(limited), yield* Throttle.inline(limited))
      assert.notStrictEqual(yield* Throttle.inline(limited), yield* Throttle.inline(limited).pipe(onOther))
    }))

  it.effect("Throttle.of is the limiter of inline use: statistics, weighted calls", () =>
    Effect.gen(function*() {
      const limited = Throttle.tokenBucket({ capacity: 3, refill: 1 })
      const throttle = yield* Throttle.inline(limited)
      yield* throttle.withPermits(Effect.void, 2)
      yield* limited(Effect.void)
      const third = yield* fork(limited(now))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(third), 1_000)
      assert.strictEqual((yield* throttle.statistics).admitted, 3)
    }))

  it.effect("Throttle.make is one of its own each time", () =>
    Effect.gen(function*() {
      const limited = once()
      yield* limited(Effect.void)
      for (let i = 0; i < 2; i++) {
        const throttle = yield* Throttle.make(limited)
        assert.isTrue(yield* isFree(throttle))
        yield* throttle.withPermit(Effect.void)
      }
      assert.strictEqual(yield* admittedInline(limited), 1)
    }))
})

describe("provided", () => {
  const limited = once()
  class A extends Context.Service<A, Throttle.Throttle>()("test/A") {
    static readonly layer = Layer.effect(A, Throttle.Throttle)
  }
  class B extends Context.Service<B, Throttle.Throttle>()("test/B") {
    static readonly layer = Layer.effect(B, Throttle.Throttle)
  }
  /** The throttles that A and B got. */
  const both = Effect.all([A, B])

  it.effect("twice in one graph is one limiter", () =>
    Effect.gen(function*() {
      const [a, b] = yield* both.pipe(
        Effect.provide(Layer.merge(A.layer.pipe(Layer.provide(limited)), B.layer.pipe(Layer.provide(limited))))
      )
      assert.strictEqual(a, b)
    }))

  it.effect("in one place of the graph too, of course", () =>
    Effect.gen(function*() {
      const [a, b] = yield* both.pipe(Effect.provide(Layer.merge(A.layer, B.layer).pipe(Layer.provide(limited))))
      assert.strictEqual(a, b)
    }))

  it.effect("Layer.fresh makes another", () =>
    Effect.gen(function*() {
      const [a, b] = yield* both
      assert.notStrictEqual(a, b)
      yield* a.withPermit(Effect.void)
      assert.isTrue(yield* isFree(b))
    }).pipe(
      Effect.provide([A.layer.pipe(Layer.provide(limited)), B.layer.pipe(Layer.provide(Layer.fresh(limited)))])
    ))

  it.effect("two builds are two limiters", () =>
    Effect.gen(function*() {
      const get = Throttle.Throttle.pipe(Effect.provide(limited))
      assert.notStrictEqual(yield* get, yield* get)
    }))

  it.effect("again inside is the same limiter, unless locally", () =>
    Effect.gen(function*() {
      const [outer, inner, local] = yield* Effect.all([
        Throttle.Throttle,
        Throttle.Throttle.pipe(Effect.provide(limited)),
        Throttle.Throttle.pipe(Effect.provide(limited, { local: true }))
      ]).pipe(Effect.provide(limited))
      assert.strictEqual(outer, inner)
      assert.notStrictEqual(outer, local)
    }))

  it.effect("two ManagedRuntimes with one MemoMap share it, two without do not", () =>
    Effect.gen(function*() {
      const memoMap = yield* Layer.makeMemoMap
      const get = (runtime: ManagedRuntime.ManagedRuntime<Throttle.Throttle, never>) =>
        Effect.map(runtime.contextEffect, (context) => Context.get(context, Throttle.Throttle))
      const shared = [ManagedRuntime.make(limited, { memoMap }), ManagedRuntime.make(limited, { memoMap })] as const
      const own = [ManagedRuntime.make(limited), ManagedRuntime.make(limited)] as const
      assert.strictEqual(yield* get(shared[0]), yield* get(shared[1]))
      assert.notStrictEqual(yield* get(own[0]), yield* get(own[1]))
      yield* Effect.forEach([...shared, ...own], (runtime) => runtime.disposeEffect)
    }))

  it.effect("a LayerMap has one for each key", () =>
    Effect.gen(function*() {
      const map = yield* LayerMap.make((_key: string) => Throttle.rate({ limit: 1 }))
      const get = (key: string) => Throttle.Throttle.pipe(Effect.provide(map.get(key)))
      const [a, again, b] = yield* Effect.all([get("a"), get("a"), get("b")]).pipe(
        Effect.provide([map.get("a"), map.get("b")])
      )
      assert.strictEqual(a, again)
      assert.notStrictEqual(a, b)
    }))

  it.effect("inline use of the same value is the provided limiter", () =>
    Effect.gen(function*() {
      const [count, free] = yield* Effect.gen(function*() {
        yield* limited(Effect.void)
        const throttle = yield* Throttle.Throttle
        assert.strictEqual(yield* Throttle.inline(limited), throttle)
        return [yield* admitted, yield* isFree(throttle)] as const
      }).pipe(Effect.provide(limited))
      assert.deepStrictEqual([count, free], [1, false])
      assert.strictEqual(yield* admittedInline(limited), 0)
    }))

  it.effect("inline use of another value is not", () =>
    Effect.gen(function*() {
      const other = once()
      const count = yield* Effect.andThen(other(Effect.void), admitted).pipe(Effect.provide(limited))
      assert.strictEqual(count, 0)
      assert.strictEqual(yield* admittedInline(other), 1)
    }))

  it.effect("inline use finds the nearest: provided again afresh it is reset", () =>
    Effect.gen(function*() {
      const spend = limited(Effect.void)
      const free = Effect.flatMap(Throttle.inline(limited), isFree)
      yield* spend
      assert.isFalse(yield* free)
      const [inOuter, inInner] = yield* Effect.gen(function*() {
        yield* spend
        const inInner = yield* Effect.andThen(spend, free).pipe(Effect.provide(Layer.fresh(limited)))
        return [yield* free, inInner]
      }).pipe(Effect.provide(limited))
      assert.deepStrictEqual([inOuter, inInner], [false, false])
      assert.isTrue(yield* free.pipe(Effect.provide(limited)))
    }))

  it.effect("Layer.merge of two policies keeps one, the last; all is the way to have both", () =>
    Effect.gen(function*() {
      const rate = once()
      const concurrency = Throttle.concurrency({ limit: 1 })
      for (const [first, last] of [[rate, concurrency], [concurrency, rate]] as const) {
        yield* Effect.gen(function*() {
          assert.strictEqual(yield* Throttle.Throttle, yield* Throttle.inline(last))
          yield* call
          assert.deepStrictEqual([yield* admittedInline(first), yield* admittedInline(last)], [0, 1])
        }).pipe(Effect.provide(Layer.merge(first, last)))
      }
    }))

  it.effect("parts of two alls, and the part itself, are independent", () =>
    Effect.gen(function*() {
      const part = once()
      const slot = Throttle.concurrency({ limit: 1 })
      const one = Throttle.all([part, slot])
      const two = Throttle.all([slot, part])
      const twice = Throttle.all([Throttle.all([part]), part])
      for (const policy of [part, one, two, twice]) {
        assert.isTrue(yield* Effect.flatMap(Throttle.inline(policy), isFree))
        yield* policy(Effect.void)
        assert.isFalse(yield* Effect.flatMap(Throttle.inline(policy), isFree))
      }
      yield* Effect.gen(function*() {
        const whole = yield* Throttle.inline(two)
        yield* fork(slot(Effect.never))
        yield* fork(one(Effect.never))
        assert.isTrue(yield* isFree(whole))
      }).pipe(Effect.provide([Layer.fresh(two), Layer.fresh(one)]))
    }))
})

describe("Service classes", () => {
  class GitHub extends Throttle.Service<GitHub>()("app/GitHub", once()) {}
  class GitLab extends Throttle.Service<GitLab>()("app/GitLab", once({ name: "gitlab" })) {}

  const nameOf = (throttle: Throttle.Throttle) =>
    Effect.map(Effect.flip(throttle.withPermits(Effect.void, 2)), (error) => (error as ThrottleError).reason.throttle)

  it.effect("two throttles in one app are two budgets", () =>
    Effect.gen(function*() {
      yield* Effect.gen(function*() {
        yield* GitHub.withPermit(Effect.void)
        assert.isFalse(yield* Effect.flatMap(GitHub, isFree))
        assert.isTrue(yield* Effect.flatMap(GitLab, isFree))
        yield* GitLab.withPermit(Effect.void)
        assert.deepStrictEqual([(yield* GitHub.statistics).admitted, (yield* GitLab.statistics).admitted], [1, 1])
      }).pipe(Effect.provide([GitHub.layer, GitLab.layer]))
    }))

  it.effect("nested in each other", () =>
    Effect.gen(function*() {
      const both = Effect.succeed("ran").pipe(GitHub.withPermit, GitLab.withPermit)
      assert.strictEqual(yield* both.pipe(Effect.provide([GitHub.layer, GitLab.layer])), "ran")
    }))

  it.effect("the class's key is the name where the policy has none", () =>
    Effect.gen(function*() {
      const names = yield* Effect.all([Effect.flatMap(GitHub, nameOf), Effect.flatMap(GitLab, nameOf)]).pipe(
        Effect.provide([GitHub.layer, GitLab.layer])
      )
      assert.deepStrictEqual(names, ["app/GitHub", "gitlab"])
      assert.strictEqual(yield* Effect.flatMap(Throttle.Throttle, nameOf).pipe(Effect.provide(once())), "tokenBucket")
      assert.strictEqual(yield* Effect.flatMap(Throttle.inline(GitHub.policy), nameOf), "tokenBucket")
      const replaced = yield* Effect.flatMap(GitHub, nameOf).pipe(Effect.provide(GitHub.layerWith(once())))
      assert.strictEqual(replaced, "app/GitHub")
    }))

  it.effect("a policy without bounds is one throttle a build of a class that has some, wherever layerWith is called", () =>
    Effect.gen(function*() {
      class Bounded extends Throttle.Service<Bounded>()("test/Bounded", Throttle.rate({ limit: 10, maxQueue: 5 })) {}
      class A extends Context.Service<A, Throttle.Throttle>()("test/A") {}
      class B extends Context.Service<B, Throttle.Throttle>()("test/B") {}
      const given = Throttle.rate({ limit: 1, per: "1 hour" })
      const context = yield* Layer.build(Layer.merge(
        Layer.provide(Layer.effect(A, Bounded), Bounded.layerWith(given)),
        Layer.provide(Layer.effect(B, Bounded), Bounded.layerWith(given))
      ))
      assert.strictEqual(Context.get(context, A), Context.get(context, B))
    }))

  it.effect("layerWith replaces one and leaves the other", () =>
    Effect.gen(function*() {
      yield* Effect.gen(function*() {
        for (let i = 0; i < 5; i++) yield* GitHub.withPermit(Effect.void)
        assert.isTrue(yield* Effect.flatMap(GitHub, isFree))
        yield* GitLab.withPermit(Effect.void)
        assert.isFalse(yield* Effect.flatMap(GitLab, isFree))
        assert.strictEqual((yield* GitHub.statistics).admitted, 5)
      }).pipe(Effect.provide([GitHub.layerWith(Throttle.none), GitLab.layer]))
    }))

  it.effect("two classes of one policy value share its budget in one graph: one value, one limiter", () =>
    Effect.gen(function*() {
      const policy = once()
      class Search extends Throttle.Service<Search>()("app/Search", policy) {}
      class Maps extends Throttle.Service<Maps>()("app/Maps", policy) {}
      yield* Effect.gen(function*() {
        assert.strictEqual(yield* Search, yield* Maps)
        yield* Search.withPermit(Effect.void)
        assert.isFalse(yield* Effect.flatMap(Maps, isFree))
      }).pipe(Effect.provide([Search.layer, Maps.layer]))
    }))

  it.effect("inline use of the class's policy is the class's throttle", () =>
    Effect.gen(function*() {
      yield* Effect.gen(function*() {
        yield* GitHub.policy(Effect.void)
        assert.strictEqual((yield* GitHub.statistics).admitted, 1)
        assert.strictEqual(yield* Throttle.inline(GitHub.policy), yield* GitHub)
      }).pipe(Effect.provide(GitHub.layer))
      assert.strictEqual(yield* admittedInline(GitHub.policy), 0)
    }))

  it.effect("inline use of a policy given to layerWith is the class's throttle, that of its own is not", () =>
    Effect.gen(function*() {
      const other = once()
      yield* Effect.gen(function*() {
        yield* other(Effect.void)
        assert.strictEqual((yield* GitHub.statistics).admitted, 1)
        yield* GitHub.policy(Effect.void)
        assert.strictEqual((yield* GitHub.statistics).admitted, 1)
      }).pipe(Effect.provide(GitHub.layerWith(other)))
      assert.strictEqual(yield* admittedInline(GitHub.policy), 1)
    }))

  it.effect("in one graph it is the same limiter as its policy's own Layer, in either order of building", () =>
    Effect.gen(function*() {
      const policy = once()
      class Search extends Throttle.Service<Search>()("app/Search", policy) {}
      const orders = [Layer.merge(policy, Search.layer), Layer.merge(Search.layer, policy)]
      for (const layer of orders) {
        const [generic, search] = yield* Effect.all([Throttle.Throttle, Search]).pipe(Effect.provide(layer))
        assert.strictEqual(generic, search)
      }
    }))

  it.effect("twice in one graph is one limiter, afresh is another", () =>
    Effect.gen(function*() {
      const use = (key: string) => {
        class Use extends Context.Service<Use, Throttle.Throttle>()(key) {}
        return Object.assign(Use, { layer: Layer.effect(Use, GitHub) })
      }
      const [A, B, C] = [use("test/A"), use("test/B"), use("test/C")]
      const [a, b, c] = yield* Effect.all([A, B, C]).pipe(Effect.provide([
        A.layer.pipe(Layer.provide(GitHub.layer)),
        B.layer.pipe(Layer.provide(GitHub.layer)),
        C.layer.pipe(Layer.provide(Layer.fresh(GitHub.layer)))
      ])) as Effect.Effect<[Throttle.Throttle, Throttle.Throttle, Throttle.Throttle]>
      assert.strictEqual(a, b)
      assert.notStrictEqual(a, c)
    }))

  it.effect("a class is a key like any other: it can be required, replaced and used", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(once())
      yield* GitHub.withPermit(Effect.void).pipe(Effect.provideService(GitHub, throttle))
      assert.strictEqual(yield* admittedBy(throttle), 1)
      const free = yield* GitHub.use(isFree).pipe(Effect.provideService(GitHub, GitHub.of(throttle)))
      assert.isFalse(free)
      assert.strictEqual(GitHub.key, "app/GitHub")
    }))

  it.effect("a throttle from elsewhere, and one with its own withPermit, is called by it", () =>
    Effect.gen(function*() {
      class Counting implements Pick<Throttle.Throttle, "withPermit"> {
        asked = 0
        withPermit<A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
          this.asked++
          return self
        }
      }
      const counting = new Counting()
      const theirs = counting as unknown as Throttle.Throttle
      const call = Effect.provideService(Throttle.withPermit(Effect.void), Throttle.Throttle, theirs)
      yield* Effect.andThen(call, call)
      assert.strictEqual(counting.asked, 2)

      const ours = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      const replaced = [
        { ...ours, withPermit: theirs.withPermit.bind(theirs) },
        Object.create(ours, { withPermit: { value: theirs.withPermit.bind(theirs) } }) as Throttle.Throttle
      ]
      for (const throttle of replaced) {
        yield* Effect.provideService(Throttle.withPermit(Effect.void), Throttle.Throttle, throttle)
      }
      assert.strictEqual(counting.asked, 4)
      assert.strictEqual((yield* ours.statistics).admitted, 0)

      yield* Effect.provideService(Throttle.withPermit(Effect.void), Throttle.Throttle, { ...ours })
      assert.strictEqual((yield* ours.statistics).admitted, 1)
    }))

  it.effect("a mock of withPermit is the one that is called, whatever it copies or forwards", () =>
    Effect.gen(function*() {
      const asked: Array<string> = []
      const mock = (name: string) => <A, E, R>(self: Effect.Effect<A, E, R>) => {
        asked.push(name)
        return self
      }
      const ours = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      const spied = { ...ours }
      vi.spyOn(spied, "withPermit").mockImplementation(mock("spy") as Throttle.Throttle["withPermit"])
      const proxied = {
        ...ours,
        withPermit: new Proxy(ours.withPermit, { apply: (_, __, [self]) => mock("proxy")(self) })
      }
      const copied = Object.defineProperties(mock("copy"), Object.getOwnPropertyDescriptors(ours.withPermit))
      const foreign = Object.assign(mock("foreign"), { limiter: {} })
      for (
        const throttle of [spied, proxied, { ...ours, withPermit: copied }, { ...ours, withPermit: foreign }]
      ) {
        yield* Effect.provideService(Throttle.withPermit(Effect.void), Throttle.Throttle, throttle as Throttle.Throttle)
      }
      assert.deepStrictEqual(asked, ["spy", "proxy", "copy", "foreign"])
      assert.strictEqual((yield* ours.statistics).admitted, 0)
    }))

  it.effect("inline use counts on, whatever becomes of the provided object's withPermit", () => {
    const policy = Throttle.rate({ limit: 1 })
    return Effect.gen(function*() {
      const throttle = yield* Throttle.Throttle
      ;(throttle as any).withPermit = (self: Effect.Effect<void>) => self
      yield* policy(Effect.void)
      assert.strictEqual((yield* throttle.statistics).admitted, 1)
    }).pipe(Effect.provide(policy))
  })

  it.effect("where it is not provided, a call dies with the missing service's name", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(GitHub.withPermit(Effect.void) as Effect.Effect<void>)
      assert.isTrue(Exit.hasDies(exit))
      assert.include(String(exit), "app/GitHub")
    }))
})

describe("when the scope closes", () => {
  const policies: Record<string, Throttle.Policy<never>> = {
    rate: Throttle.rate({ limit: 1 }),
    "sliding window": Throttle.window({ limit: 1, per: "1 second" }),
    "fixed window": Throttle.window({ limit: 1, per: "1 second", kind: "fixed" }),
    spacing: Throttle.spacing({ interval: "1 second" }),
    "spacing from the end": Throttle.spacing({ interval: "1 second", from: "end" }),
    concurrency: Throttle.concurrency({ limit: 1 }),
    all: Throttle.all([Throttle.rate({ limit: 1 }), Throttle.concurrency({ limit: 1 })])
  }

  const interrupted = (exit: Exit.Exit<unknown, unknown> | undefined, what: string) => {
    assert.isDefined(exit, `${what} is left hanging`)
    assert.isTrue(Exit.isFailure(exit!) && Cause.hasInterruptsOnly(exit.cause), `${what}: ${exit}`)
  }

  /** A throttle of this policy, and what closes its scope. */
  const closable = (policy: Throttle.Policy<any>) =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(policy, scope)
      return {
        throttle: Context.get(context, Throttle.Throttle),
        context,
        close: Scope.close(scope, Exit.void)
      }
    })

  for (const [name, policy] of Object.entries(policies)) {
    it.effect(`${name}: waiting calls are interrupted, running calls end`, () =>
      Effect.gen(function*() {
        const { close, context, throttle } = yield* closable(policy)
        let started = 0
        const start = Effect.sync(() => void started++)
        const running = yield* fork(throttle.withPermit(Effect.as(Effect.sleep(500), "ended")))
        const waiting = {
          withPermit: yield* fork(throttle.withPermit(start)),
          withPermits: yield* fork(throttle.withPermits(start, 1)),
          "cost 0": yield* fork(throttle.withPermits(start, 0)),
          takeScoped: yield* fork(Effect.scoped(Effect.andThen(throttle.takeScoped(), start))),
          inline: yield* fork(policy(start).pipe(Effect.provideContext(context))),
          uninterruptible: yield* fork(Effect.uninterruptible(throttle.withPermit(start)))
        }
        assert.strictEqual((yield* throttle.statistics).waiting, 6)
        yield* close
        yield* TestClock.adjust(0)
        for (const [what, fiber] of Object.entries(waiting)) interrupted(fiber.pollUnsafe(), what)
        assert.isUndefined(running.pollUnsafe(), "who runs was interrupted")
        assert.strictEqual((yield* throttle.statistics).waiting, 0)
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* Fiber.join(running), "ended")
        assert.strictEqual(started, 0)
        const { admitted, interrupted: left, running: held } = yield* throttle.statistics
        assert.deepStrictEqual({ admitted, left, held }, { admitted: 1, left: 6, held: 0 })
      }))

    it.effect(`${name}: later calls are interrupted, though they could start`, () =>
      Effect.gen(function*() {
        const { close, context, throttle } = yield* closable(policy)
        yield* close
        let started = 0
        const start = Effect.sync(() => void started++)
        const later: Record<string, Effect.Effect<unknown, unknown>> = {
          withPermit: throttle.withPermit(start),
          "withPermits(1)": throttle.withPermits(start, 1),
          "withPermits(0)": throttle.withPermits(start, 0),
          withPermitsIfAvailable: throttle.withPermitsIfAvailable(start, 1),
          takeScoped: Effect.scoped(Effect.andThen(throttle.takeScoped(), start)),
          inline: policy(start).pipe(Effect.provideContext(context)),
          uninterruptible: Effect.uninterruptible(throttle.withPermit(start)),
          ...["rate", "sliding window", "fixed window", "spacing"].includes(name)
            ? { wait: Effect.andThen(throttle.wait(), start) }
            : {}
        }
        for (const [what, effect] of Object.entries(later)) {
          const fiber = yield* fork(effect)
          yield* TestClock.adjust(0)
          interrupted(fiber.pollUnsafe(), what)
        }
        assert.strictEqual(started, 0)
        const { admitted, rejected, running, waiting } = yield* throttle.statistics
        assert.deepStrictEqual({ admitted, running, waiting }, { admitted: 0, running: 0, waiting: 0 })
        assert.deepStrictEqual(Object.values(rejected), [0, 0, 0, 0, 0])
      }))

    it.effect(`${name}: a head whose time has just come is interrupted or runs, but not left`, () =>
      Effect.gen(function*() {
        const { close, throttle } = yield* closable(policy)
        yield* fork(throttle.withPermit(Effect.sleep(1_000)))
        let started = 0
        const waiting = yield* Effect.forEach(
          [1, 2, 3],
          () => fork(throttle.withPermit(Effect.sync(() => void started++)))
        )
        // The clock wakes the head and this fiber at the same instant.
        const closing = yield* fork(Effect.andThen(Effect.sleep(1_000), close))
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(closing)
        yield* TestClock.adjust("1 minute")
        const exits = waiting.map((fiber) => fiber.pollUnsafe())
        for (const [i, exit] of exits.entries()) {
          assert.isDefined(exit, `waiting call ${i} is left hanging`)
          if (i >= started) interrupted(exit, `waiting call ${i}`)
        }
        assert.strictEqual((yield* throttle.statistics).waiting, 0)
      }))
  }

  it.effect("later calls are interrupted, not rejected, and emit no event", () =>
    Effect.gen(function*() {
      const { close, throttle } = yield* closable(Throttle.rate({ limit: 1, maxQueue: 0, maxWait: 1, timeout: 1 }))
      yield* throttle.wait()
      yield* close
      const events: Array<Throttle.Event> = []
      for (const cost of [0, 1, 2]) {
        const later = yield* fork(
          throttle.wait(cost).pipe(
            Effect.provideService(Throttle.Observer, (event) => Effect.sync(() => void events.push(event)))
          )
        )
        interrupted(later.pollUnsafe(), `cost ${cost}`)
      }
      assert.deepStrictEqual(events, [])
      const { interrupted: left, rejected } = yield* throttle.statistics
      assert.deepStrictEqual([left, ...Object.values(rejected)], [0, 0, 0, 0, 0, 0])
    }))

  it.effect("running calls release their permits, also those taken for a scope", () =>
    Effect.gen(function*() {
      const { close, throttle } = yield* closable(Throttle.concurrency({ limit: 3 }))
      const scope = yield* Scope.make()
      yield* throttle.takeScoped(2).pipe(Scope.provide(scope))
      const running = yield* fork(throttle.withPermit(Effect.sleep(10)))
      yield* close
      assert.strictEqual((yield* throttle.statistics).running, 2)
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust(10)
      yield* Fiber.join(running)
      assert.strictEqual((yield* throttle.statistics).running, 0)
    }))

  it.effect("in queue order, and the finalizers of each call run", () =>
    Effect.gen(function*() {
      const { close, throttle } = yield* closable(Throttle.rate({ limit: 1 }))
      yield* throttle.withPermit(Effect.void)
      const left: Array<number> = []
      for (const i of [1, 2, 3]) {
        yield* fork(throttle.withPermit(Effect.void).pipe(Effect.ensuring(Effect.sync(() => void left.push(i)))))
      }
      yield* close
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(left, [1, 2, 3])
    }))

  it.effect("a fiber that outlives Effect.provide is interrupted while it waits", () =>
    Effect.gen(function*() {
      const policy = once()
      const fiber = yield* Effect.andThen(policy(Effect.void), Effect.forkDetach(policy(Effect.void))).pipe(
        Effect.provide(policy)
      )
      yield* TestClock.adjust(0)
      interrupted(fiber.pollUnsafe(), "the fiber")
    }))

  it.effect("Throttle.make: the scope is the one it was made in", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const throttle = yield* Throttle.make(once()).pipe(Scope.provide(scope))
      yield* throttle.withPermit(Effect.void)
      const waiting = yield* fork(throttle.withPermit(Effect.void))
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust(0)
      interrupted(waiting.pollUnsafe(), "who waits")
    }))

  it.effect("a ManagedRuntime that is disposed", () =>
    Effect.gen(function*() {
      const runtime = ManagedRuntime.make(once())
      const throttle = Context.get(yield* runtime.contextEffect, Throttle.Throttle)
      yield* throttle.withPermit(Effect.void)
      const waiting = yield* fork(throttle.withPermit(Effect.void))
      yield* runtime.disposeEffect
      yield* TestClock.adjust(0)
      interrupted(waiting.pollUnsafe(), "who waits")
    }))

  it.effect("what it has counted can still be read", () =>
    Effect.gen(function*() {
      const { close, throttle } = yield* closable(once())
      yield* throttle.withPermit(Effect.void)
      yield* close
      assert.strictEqual(yield* admittedBy(throttle), 1)
      yield* throttle.estimateWait()
    }))

  it.effect("closing twice, or without any call, has no effect", () =>
    Effect.gen(function*() {
      const { close } = yield* closable(once())
      yield* close
      yield* close
    }))

  it.effect("the same policy built again starts afresh", () =>
    Effect.gen(function*() {
      const policy = once()
      for (let i = 0; i < 3; i++) {
        const { close, throttle } = yield* closable(policy)
        yield* throttle.withPermit(Effect.void)
        yield* close
      }
      yield* policy(Effect.void)
    }))
})

describe("the Clock of a limiter", () => {
  it.effect("is that of the fiber that built its Layer", () =>
    Effect.gen(function*() {
      const other = yield* TestClock.make()
      const policy = Throttle.rate({ limit: 1 })
      const context = yield* Layer.build(policy).pipe(Effect.provideService(Clock.Clock, other))
      const throttle = Context.get(context, Throttle.Throttle)
      yield* throttle.withPermit(Effect.void)
      const waiting = yield* fork(throttle.withPermit(Effect.void))
      const inline = yield* fork(policy(Effect.void).pipe(Effect.provideContext(context)))
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(waiting.pollUnsafe(), "it went by the caller's clock")
      yield* other.adjust("1 second")
      assert.isDefined(waiting.pollUnsafe())
      assert.isUndefined(inline.pollUnsafe())
      yield* other.adjust("1 second")
      assert.isDefined(inline.pollUnsafe())
    }))

  it.effect("stays so where the caller has another", () =>
    Effect.gen(function*() {
      const other = yield* TestClock.make()
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      yield* throttle.withPermit(Effect.void)
      const waiting = yield* fork(throttle.withPermit(Effect.void).pipe(Effect.provideService(Clock.Clock, other)))
      yield* other.adjust("1 hour")
      assert.isUndefined(waiting.pollUnsafe(), "it went by the caller's clock")
      yield* TestClock.adjust("1 second")
      assert.isDefined(waiting.pollUnsafe())
    }))
})

describe("none in several classes", () => {
  class Here extends Throttle.Service<Here>()("app/Here", Throttle.rate({ limit: 1 })) {}
  class There extends Throttle.Service<There>()("app/There", Throttle.rate({ limit: 1 })) {}

  it.effect("each has a throttle of its own: there is no budget to share", () =>
    Effect.gen(function*() {
      yield* Here.withPermit(Effect.void)
      assert.strictEqual((yield* Here.statistics).admitted, 1)
      assert.strictEqual((yield* There.statistics).admitted, 0)
    }).pipe(Effect.provide(Layer.mergeAll(Here.layerWith(Throttle.none), There.layerWith(Throttle.none)))))
})

describe("statics of a Service class", () => {
  class Free extends Throttle.Service<Free>()("app/Free", Throttle.rate({ limit: 1 })) {}
  class Bounded extends Throttle.Service<Bounded>()("app/Bounded", Throttle.rate({ limit: 1, maxQueue: 0 })) {}

  const config = (data: object) => (self: Effect.Effect<any, any, never>) =>
    Effect.provideService(
      self,
      ConfigProvider.ConfigProvider,
      ConfigProvider.fromEnv({ env: { API_THROTTLE: JSON.stringify(data) } })
    )

  it.effect("layerConfig provides the policy that the configuration describes", () =>
    Effect.gen(function*() {
      yield* Free.wait()
      assert.deepStrictEqual(yield* Free.estimateWait(), Option.some(Duration.millis(250)))
    }).pipe(
      Effect.provide(Free.layerConfig(Throttle.config("API_THROTTLE"))),
      config({ _tag: "Rate", limit: 4 })
    ))

  it.effect("layerConfig fails with a ConfigError for a bounded policy where calls of the class cannot fail", () =>
    Effect.gen(function*() {
      for (const bounds of [{ maxQueue: 0 }, { maxWait: 5 }, { timeout: 5 }]) {
        const error = yield* Effect.flip(Effect.provide(
          Free.wait(),
          Free.layerConfig(Throttle.config("API_THROTTLE"))
        )).pipe(config({ _tag: "All", policies: [{ _tag: "Rate", limit: 4, ...bounds }] }))
        assert.instanceOf(error, Config.ConfigError)
        assert.include(error.message, "app/Free")
      }
    }))

  it.effect("layerConfig takes a bounded policy in shadow where calls of the class cannot fail", () =>
    Effect.gen(function*() {
      yield* Free.wait()
      yield* Free.wait()
      assert.strictEqual((yield* Free.statistics).rejected.QueueFull, 1)
    }).pipe(
      Effect.provide(Free.layerConfig(Throttle.config("API_THROTTLE"))),
      config({ _tag: "Shadow", policy: { _tag: "Rate", limit: 4, maxQueue: 0 } })
    ))

  it.effect("layerConfig takes a bounded policy where calls of the class may fail", () =>
    Effect.gen(function*() {
      yield* Bounded.wait()
      assert.strictEqual(reasonOf(yield* Effect.exit(Bounded.wait())), "QueueFull")
    }).pipe(
      Effect.provide(Bounded.layerConfig(Throttle.config("API_THROTTLE"))),
      config({ _tag: "Rate", limit: 4, maxQueue: 0 })
    ))

  it.effect("layerConfig fails with a ConfigError for what is not a policy", () =>
    Effect.gen(function*() {
      for (const service of [Free, Bounded]) {
        const layer: Layer.Layer<any, Config.ConfigError> = service.layerConfig(Throttle.config("API_THROTTLE"))
        const exit = yield* Effect.exit(Effect.scoped(Layer.build(layer))).pipe(config({ _tag: "Rate", limit: 0 }))
        assert.instanceOf(errorOf(exit), Config.ConfigError)
      }
    }))

  it.effect("stream charges each element", () =>
    Effect.gen(function*() {
      const starts: Array<number> = []
      yield* fork(
        Stream.runForEach(
          Stream.make("a", "b", "c").pipe(Free.stream()),
          () => Effect.map(now, (at) => void starts.push(at))
        )
      )
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(starts, [0, 1_000, 2_000])
      assert.strictEqual((yield* Free.statistics).admitted, 3)
    }).pipe(Effect.provide(Free.layer)))

  it.effect("stream charges the cost of each element", () =>
    Effect.gen(function*() {
      const stream = Stream.make(0, 1, 0).pipe(Free.stream({ cost: (n: number) => n }))
      assert.deepStrictEqual(yield* Stream.runCollect(stream), [0, 1, 0])
      assert.deepStrictEqual(yield* Free.estimateWait(), Option.some(Duration.seconds(1)))
      const tooMuch = Stream.make(2).pipe(Free.stream({ cost: (n: number) => n }))
      assert.strictEqual(reasonOf(yield* Effect.exit(Stream.runDrain(tooMuch))), "PermitsExceedCapacity")
    }).pipe(Effect.provide(Free.layer)))

  it.effect("estimateWait takes nothing", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* Bounded.estimateWait(), Option.some(Duration.zero))
      yield* Bounded.wait()
      assert.deepStrictEqual(yield* Bounded.estimateWait(), Option.some(Duration.seconds(1)))
      assert.deepStrictEqual(yield* Bounded.estimateWait(2), Option.none())
      assert.strictEqual((yield* Bounded.statistics).admitted, 1)
    }).pipe(Effect.provide(Bounded.layer)))
})

describe("what is no policy", () => {
  it.effect("throws a RangeError that names it", () =>
    Effect.gen(function*() {
      for (const bad of [undefined, null, 5, {}, () => {}] as ReadonlyArray<any>) {
        assert.throws(() => Throttle.make(bad), RangeError, "\"policy\" must be a policy")
        assert.throws(() => Throttle.Service<any>()("app/Bad", bad), RangeError, "\"policy\" must be a policy")
        assert.throws(() => Effect.runSync(Throttle.inline(bad)), "\"policy\" must be a policy")
      }
      assert.notInclude(Object.keys(yield* Throttle.inline(Throttle.none)), "limiter")
    }))
})
