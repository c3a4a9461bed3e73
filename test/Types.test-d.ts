/**
 * What the compiler promises: errors that are exact and sound, requirements that are exact.
 */
import { Config, Effect, flow, Layer, type Option, type Schema, type Scope, Stream } from "effect"
import type { Duration } from "effect"
import { Policy, Throttle, ThrottleError, ThrottleMap } from "effect-throttle"
import type {
  Draining,
  KeysExhausted,
  LeaseLost,
  PermitsExceedCapacity,
  QueueFull,
  StoreError,
  TimedOut,
  WaitTooLong
} from "effect-throttle"
import { describe, expectTypeOf, test } from "vitest"

declare const work: Effect.Effect<"done", "bad", "database">
declare const failing: Effect.Effect<number, ThrottleError | "other">

type Throttled<E = never, R = never> = Effect.Effect<"done", "bad" | E, "database" | R>

describe("errors of a policy", () => {
  test("without bounds: none", () => {
    expectTypeOf(Throttle.rate({ limit: 1 })).toEqualTypeOf<Throttle.Policy<never, "permits">>()
    expectTypeOf(Throttle.tokenBucket({ capacity: 1, refill: 1 })).toEqualTypeOf<Throttle.Policy<never, "permits">>()
    expectTypeOf(Throttle.window({ limit: 1, per: 1 })).toEqualTypeOf<Throttle.Policy<never, "permits">>()
    expectTypeOf(Throttle.window({ kind: "calendar", limit: 1, per: "day", unit: "tokens" }))
      .toEqualTypeOf<Throttle.Policy<never, "tokens">>()
    expectTypeOf(Throttle.window({ kind: "calendar", limit: 1, per: "day", unit: "tokens", maxQueue: 1 }))
      .toEqualTypeOf<Throttle.Policy<ThrottleError, "tokens">>()
    expectTypeOf(Throttle.concurrency({ limit: 1 })).toEqualTypeOf<Throttle.Policy<never, "permits">>()
    expectTypeOf(Throttle.spacing({ interval: 1 })).toEqualTypeOf<Throttle.Policy<never, "permits">>()
    expectTypeOf(Throttle.none).toEqualTypeOf<Throttle.Policy<never, string>>()
  })

  test("with every option that is no bound: none", () => {
    const options = { name: "api", unit: "tokens" as const }
    expectTypeOf(Throttle.rate({ limit: 1, per: 1, burst: 0, ...options })).toEqualTypeOf<
      Throttle.Policy<never, "tokens">
    >()
    expectTypeOf(Throttle.tokenBucket({ capacity: 1, refill: 1, per: "1 second", ...options }))
      .toEqualTypeOf<Throttle.Policy<never, "tokens">>()
    expectTypeOf(Throttle.window({ limit: 1, per: 1, kind: "fixed", ...options }))
      .toEqualTypeOf<Throttle.Policy<never, "tokens">>()
    expectTypeOf(Throttle.concurrency({ limit: 1, ...options })).toEqualTypeOf<Throttle.Policy<never, "tokens">>()
    expectTypeOf(Throttle.spacing({ interval: 1, align: true, from: "end", ...options }))
      .toEqualTypeOf<Throttle.Policy<never, "tokens">>()
  })

  test("with bounds that are undefined: none", () => {
    expectTypeOf(Throttle.rate({ limit: 1, maxQueue: undefined, maxWait: undefined, timeout: undefined }))
      .toEqualTypeOf<Throttle.Policy<never, "permits">>()
  })

  test("with any bound: ThrottleError", () => {
    expectTypeOf(Throttle.rate({ limit: 1, maxQueue: 0 })).toEqualTypeOf<Throttle.Policy<ThrottleError, "permits">>()
    expectTypeOf(Throttle.rate({ limit: 1, maxWait: "1 second" })).toEqualTypeOf<
      Throttle.Policy<ThrottleError, "permits">
    >()
    expectTypeOf(Throttle.rate({ limit: 1, timeout: 1 })).toEqualTypeOf<Throttle.Policy<ThrottleError, "permits">>()
    expectTypeOf(Throttle.tokenBucket({ capacity: 1, refill: 1, maxQueue: 0 }))
      .toEqualTypeOf<Throttle.Policy<ThrottleError, "permits">>()
    expectTypeOf(Throttle.window({ limit: 1, per: 1, maxWait: 1 })).toEqualTypeOf<
      Throttle.Policy<ThrottleError, "permits">
    >()
    expectTypeOf(Throttle.window({ kind: "calendar", limit: 1, per: "day", maxWait: 1 })).toEqualTypeOf<
      Throttle.Policy<ThrottleError, "permits">
    >()
    expectTypeOf(Throttle.concurrency({ limit: 1, timeout: 1 })).toEqualTypeOf<
      Throttle.Policy<ThrottleError, "permits">
    >()
    expectTypeOf(Throttle.spacing({ interval: 1, maxQueue: 1 })).toEqualTypeOf<
      Throttle.Policy<ThrottleError, "permits">
    >()
  })

  test("with a bound that may be there: ThrottleError", () => {
    const maxQueue = 5 as number | undefined
    expectTypeOf(Throttle.rate({ limit: 1, maxQueue })).toEqualTypeOf<Throttle.Policy<ThrottleError, "permits">>()
  })

  test("with a bound in a variable: ThrottleError", () => {
    const inferred = { limit: 1, maxQueue: 5 }
    expectTypeOf(Throttle.rate(inferred)).toEqualTypeOf<Throttle.Policy<ThrottleError, "permits">>()
    const declared: Throttle.Bounded<Throttle.RateOptions> = { limit: 1 }
    expectTypeOf(Throttle.rate(declared)).toEqualTypeOf<Throttle.Policy<ThrottleError, string>>()
    const wider: { limit: number; name: string; maxQueue?: number; other: boolean } = {
      limit: 1,
      name: "api",
      other: true
    }
    expectTypeOf(Throttle.rate(wider)).toEqualTypeOf<Throttle.Policy<ThrottleError, "permits">>()
    const bounds: Throttle.Bounds = {}
    expectTypeOf(Throttle.rate({ limit: 1, ...bounds })).toEqualTypeOf<Throttle.Policy<ThrottleError, "permits">>()
  })

  test("cannot be lost on the way through an options type", () => {
    const wide = { limit: 1, capacity: 1, refill: 1, per: 1, interval: 1, name: "api", maxQueue: 0 }
    // @ts-expect-error maxQueue
    const rate: Throttle.RateOptions = wide
    // @ts-expect-error maxQueue
    const tokenBucket: Throttle.TokenBucketOptions = wide
    // @ts-expect-error maxQueue
    const window: Throttle.WindowOptions = wide
    // @ts-expect-error maxQueue
    const concurrency: Throttle.ConcurrencyOptions = wide
    // @ts-expect-error maxQueue
    const spacing: Throttle.SpacingOptions = wide
    const wideCalendar = { kind: "calendar", limit: 1, per: "day", maxQueue: 0 } as const
    // @ts-expect-error maxQueue
    const calendar: Throttle.CalendarWindowOptions = wideCalendar
    void [rate, tokenBucket, window, calendar, concurrency, spacing]
  })

  test("of data: ThrottleError, since it is not known before it is read", () => {
    expectTypeOf(Throttle.fromData({ _tag: "Rate", limit: 1 })).toEqualTypeOf<Throttle.Policy<ThrottleError>>()
    expectTypeOf(Throttle.fromData(Throttle.none.data)).toEqualTypeOf<Throttle.Policy<ThrottleError>>()
    expectTypeOf(Throttle.decode).returns.toEqualTypeOf<
      Effect.Effect<Throttle.Policy<ThrottleError>, Schema.SchemaError>
    >()
    const u: unknown = 1
    if (Throttle.isPolicy(u)) expectTypeOf(u).toEqualTypeOf<Throttle.Policy<ThrottleError>>()
  })

  test("without a type argument a Policy may fail", () => {
    expectTypeOf<Throttle.Policy>().toEqualTypeOf<Throttle.Policy<ThrottleError>>()
  })

  test("cannot be lost: a bounded policy is no unbounded one", () => {
    const bounded = Throttle.rate({ limit: 1, maxQueue: 0 })
    // @ts-expect-error it may fail
    const p: Throttle.Policy<never> = bounded
    const q: Throttle.Policy<ThrottleError> = Throttle.none
    void [p, q]
    expectTypeOf<Throttle.Policy<ThrottleError>>().not.toExtend<Throttle.Policy<never>>()
    expectTypeOf<Throttle.Policy<never>>().toExtend<Throttle.Policy<ThrottleError>>()
  })
})

describe("errors of all", () => {
  const unbounded = Throttle.rate({ limit: 1 })
  const bounded = Throttle.concurrency({ limit: 1, maxQueue: 0 })

  test("without a bound anywhere: none", () => {
    expectTypeOf(Throttle.all([unbounded, Throttle.none])).toEqualTypeOf<Throttle.Policy<never, "permits">>()
    expectTypeOf(Throttle.all([unbounded], { name: "api", unit: "tokens" })).toEqualTypeOf<
      Throttle.Policy<never, "tokens">
    >()
    expectTypeOf(Throttle.all([unbounded, Throttle.all([unbounded])])).toEqualTypeOf<
      Throttle.Policy<never, "permits">
    >()
    const parts: ReadonlyArray<Throttle.Policy<never>> = [unbounded]
    expectTypeOf(Throttle.all(parts)).toEqualTypeOf<Throttle.Policy<never>>()
  })

  test("of nothing: none", () => {
    expectTypeOf(Throttle.all([])).toEqualTypeOf<Throttle.Policy<never, string>>()
    expectTypeOf(Throttle.all([], { name: "api" })).toEqualTypeOf<Throttle.Policy<never, string>>()
    expectTypeOf(Throttle.all([], { maxQueue: 0 })).toEqualTypeOf<Throttle.Policy<ThrottleError, string>>()
  })

  test("with a bounded part: ThrottleError", () => {
    expectTypeOf(Throttle.all([bounded])).toEqualTypeOf<Throttle.Policy<ThrottleError, "permits">>()
    expectTypeOf(Throttle.all([unbounded, bounded])).toEqualTypeOf<Throttle.Policy<ThrottleError, "permits">>()
    expectTypeOf(Throttle.all([bounded, unbounded], { name: "api" })).toEqualTypeOf<
      Throttle.Policy<ThrottleError, "permits">
    >()
    expectTypeOf(Throttle.all([unbounded, Throttle.all([bounded])])).toEqualTypeOf<
      Throttle.Policy<ThrottleError, "permits">
    >()
    const parts = [unbounded, bounded]
    expectTypeOf(Throttle.all(parts)).toEqualTypeOf<Throttle.Policy<ThrottleError, "permits">>()
  })

  test("with a bound of its own: ThrottleError", () => {
    expectTypeOf(Throttle.all([unbounded], { maxQueue: 0 })).toEqualTypeOf<Throttle.Policy<ThrottleError, "permits">>()
    expectTypeOf(Throttle.all([unbounded], { maxWait: 1 })).toEqualTypeOf<Throttle.Policy<ThrottleError, "permits">>()
    expectTypeOf(Throttle.all([unbounded], { timeout: 1 })).toEqualTypeOf<Throttle.Policy<ThrottleError, "permits">>()
    expectTypeOf(Throttle.all([unbounded, bounded], { timeout: 1 })).toEqualTypeOf<
      Throttle.Policy<ThrottleError, "permits">
    >()
    const options: Throttle.Bounded<Throttle.Options> = {}
    expectTypeOf(Throttle.all([unbounded], options)).toEqualTypeOf<Throttle.Policy<ThrottleError, string>>()
    const wide = { name: "api", maxQueue: 0 }
    // @ts-expect-error a bound cannot hide behind the options of unbounded policies
    const hidden: Throttle.Options = wide
    expectTypeOf(hidden).toEqualTypeOf<Throttle.Options>()
  })
})

describe("options", () => {
  test("a misspelt one does not compile", () => {
    // @ts-expect-error lmit
    Throttle.rate({ limit: 1, lmit: 1 })
    // @ts-expect-error maxqueue
    Throttle.rate({ limit: 1, maxqueue: 1 })
    // @ts-expect-error maxqueue
    Throttle.rate({ limit: 1, maxQueue: 1, maxqueue: 1 })
    // @ts-expect-error burst is no option of a bucket
    Throttle.tokenBucket({ capacity: 1, refill: 1, burst: 1 })
    // @ts-expect-error king
    Throttle.window({ limit: 1, per: 1, king: "fixed" })
    // @ts-expect-error per is no option of concurrency
    Throttle.concurrency({ limit: 1, per: 1 })
    // @ts-expect-error aligned
    Throttle.spacing({ interval: 1, aligned: true })
    // @ts-expect-error maxqueue
    Throttle.all([Throttle.none], { maxqueue: 1 })
    // @ts-expect-error burst is no option of all
    Throttle.all([Throttle.none], { burst: 1, maxQueue: 1 })
  })

  test("a missing one does not compile", () => {
    // @ts-expect-error limit
    Throttle.rate({})
    // @ts-expect-error options
    Throttle.rate()
    // @ts-expect-error refill
    Throttle.tokenBucket({ capacity: 1 })
    // @ts-expect-error per
    Throttle.window({ limit: 1 })
    // @ts-expect-error limit
    Throttle.concurrency({ maxQueue: 1 })
    // @ts-expect-error interval
    Throttle.spacing({ from: "end" })
    // @ts-expect-error parts
    Throttle.all()
  })

  test("one of a wrong type does not compile", () => {
    // @ts-expect-error a number
    Throttle.rate({ limit: "1" })
    // @ts-expect-error a duration
    Throttle.rate({ limit: 1, per: "soon" })
    // @ts-expect-error a duration
    Throttle.rate({ limit: 1, timeout: true })
    // @ts-expect-error a kind
    Throttle.window({ limit: 1, per: 1, kind: "rolling" })
    // @ts-expect-error start or end
    Throttle.spacing({ interval: 1, from: "middle" })
    // @ts-expect-error a policy
    Throttle.all([{ _tag: "Rate", limit: 1 }])
    // @ts-expect-error a policy, not a Layer
    Throttle.all([Layer.fresh(Throttle.none)])
  })

  test("data that is no policy's does not compile", () => {
    // @ts-expect-error a tag
    Throttle.fromData({ _tag: "Rates", limit: 1 })
    // @ts-expect-error a limit
    Throttle.fromData({ _tag: "Rate" })
    // @ts-expect-error a number
    Throttle.fromData({ _tag: "Rate", limit: "1" })
    // @ts-expect-error nobody foresees concurrency
    Throttle.fromData({ _tag: "Concurrency", limit: 1, maxWait: 5 })
    expectTypeOf(Throttle.none.data).toEqualTypeOf<Policy.PolicyData>()
    expectTypeOf<Policy.PolicyData>().toExtend<Policy.PolicyEncoded>()
  })
})

describe("an effect through a policy", () => {
  const unbounded = Throttle.rate({ limit: 1 })
  const bounded = Throttle.rate({ limit: 1, maxQueue: 0 })

  test("keeps what it gives and needs, and gets exactly the policy's error", () => {
    expectTypeOf(work.pipe(unbounded)).toEqualTypeOf<Throttled>()
    expectTypeOf(work.pipe(bounded)).toEqualTypeOf<Throttled<ThrottleError>>()
    expectTypeOf(unbounded(work)).toEqualTypeOf<Throttled>()
    expectTypeOf(work.pipe(unbounded, bounded)).toEqualTypeOf<Throttled<ThrottleError>>()
    expectTypeOf(unbounded(Effect.succeed(1))).toEqualTypeOf<Effect.Effect<number>>()
  })

  test("in flow and in Effect.fn", () => {
    const flowed = flow((effect: typeof work) => effect, bounded)
    const both = flow(unbounded, bounded, Effect.asSome)
    expectTypeOf(both(work)).toEqualTypeOf<Effect.Effect<Option.Option<"done">, "bad" | ThrottleError, "database">>()
    expectTypeOf(both(Effect.succeed(1))).toEqualTypeOf<Effect.Effect<Option.Option<number>, ThrottleError>>()
    expectTypeOf(flowed).toEqualTypeOf<(effect: typeof work) => Throttled<ThrottleError>>()
    const body = function*(_id: string, _n: number) {
      return yield* work
    }
    expectTypeOf(Effect.fn("f")(body, unbounded)).toEqualTypeOf<(_id: string, _n: number) => Throttled>()
    expectTypeOf(Effect.fn("f")(body, bounded)).toEqualTypeOf<(_id: string, _n: number) => Throttled<ThrottleError>>()
    expectTypeOf(Effect.fn(body, bounded)).toEqualTypeOf<(_id: string, _n: number) => Throttled<ThrottleError>>()
  })

  test("what is no effect does not compile", () => {
    // @ts-expect-error not an effect
    unbounded(1)
    // @ts-expect-error nothing
    unbounded()
    // @ts-expect-error a function that gives an effect is none
    unbounded(() => work)
  })
})

describe("a policy as a Layer", () => {
  const bounded = Throttle.rate({ limit: 1, maxQueue: 0 })

  test("is a Layer of the service that needs nothing and cannot fail", () => {
    const layer: Layer.Layer<Throttle.Throttle> = bounded
    void layer
    expectTypeOf<Throttle.Policy<never>>().toExtend<Layer.Layer<Throttle.Throttle>>()
    expectTypeOf<Throttle.Policy<ThrottleError>>().toExtend<Layer.Layer<Throttle.Throttle>>()
    expectTypeOf<Layer.Success<typeof bounded>>().toEqualTypeOf<Throttle.Throttle>()
    expectTypeOf<Layer.Error<typeof bounded>>().toEqualTypeOf<never>()
    expectTypeOf<Layer.Services<typeof bounded>>().toEqualTypeOf<never>()
  })

  test("goes where Layers go", () => {
    expectTypeOf(work.pipe(Throttle.withPermit, Effect.provide(bounded))).toEqualTypeOf<Throttled<ThrottleError>>()
    expectTypeOf(Layer.fresh(bounded)).toEqualTypeOf<Layer.Layer<Throttle.Throttle>>()
    expectTypeOf(Layer.merge(bounded, Throttle.none)).toEqualTypeOf<Layer.Layer<Throttle.Throttle>>()
    const user = Layer.effectDiscard(Throttle.statistics)
    expectTypeOf(Layer.provide(user, bounded)).toEqualTypeOf<Layer.Layer<never>>()
    expectTypeOf(Layer.provideMerge(user, bounded)).toEqualTypeOf<Layer.Layer<Throttle.Throttle>>()
    expectTypeOf(user.pipe(Layer.provide(bounded))).toEqualTypeOf<Layer.Layer<never>>()
    expectTypeOf(Throttle.layerConfig).returns.toEqualTypeOf<Layer.Layer<Throttle.Throttle, Config.ConfigError>>()
  })
})

describe("the service", () => {
  test("everything that it does may fail with ThrottleError and needs nothing", () => {
    const use = (throttle: Throttle.Throttle) => {
      expectTypeOf(throttle.withPermit(work)).toEqualTypeOf<Throttled<ThrottleError>>()
      expectTypeOf(throttle.withPermits(work, 1)).toEqualTypeOf<Throttled<ThrottleError>>()
      expectTypeOf(work.pipe(throttle.withPermits({ tokens: 1 }))).toEqualTypeOf<Throttled<ThrottleError>>()
      expectTypeOf(throttle.withPermitsIfAvailable(work, 1))
        .toEqualTypeOf<Effect.Effect<Option.Option<"done">, "bad" | ThrottleError, "database">>()
      expectTypeOf(work.pipe(throttle.withPermitsIfAvailable(1)))
        .toEqualTypeOf<Effect.Effect<Option.Option<"done">, "bad" | ThrottleError, "database">>()
      expectTypeOf(throttle.wait()).toEqualTypeOf<Effect.Effect<void, ThrottleError>>()
      expectTypeOf(throttle.wait({ tokens: 1 })).toEqualTypeOf<Effect.Effect<void, ThrottleError>>()
      expectTypeOf(throttle.takeScoped(2))
        .toEqualTypeOf<Effect.Effect<Throttle.Permit, ThrottleError, Scope.Scope>>()
      expectTypeOf(throttle.estimateWait()).toEqualTypeOf<Effect.Effect<Option.Option<Duration.Duration>>>()
      expectTypeOf(throttle.allow()).toEqualTypeOf<Effect.Effect<boolean, ThrottleError>>()
      expectTypeOf(throttle.remaining).toEqualTypeOf<Effect.Effect<ReadonlyArray<Throttle.Remaining>>>()
      expectTypeOf(throttle.reset).toEqualTypeOf<Effect.Effect<void>>()
      expectTypeOf(throttle.statistics).toEqualTypeOf<Effect.Effect<Throttle.Statistics>>()
    }
    void use
    expectTypeOf(Throttle.make).returns.toEqualTypeOf<Effect.Effect<Throttle.Throttle, never, Scope.Scope>>()
    expectTypeOf(Throttle.inline).returns.toEqualTypeOf<Effect.Effect<Throttle.Throttle>>()
  })

  test("the functions of the module need it", () => {
    expectTypeOf(Throttle.withPermit(work)).toEqualTypeOf<Throttled<ThrottleError, Throttle.Throttle>>()
    expectTypeOf(work.pipe(Throttle.withPermit)).toEqualTypeOf<Throttled<ThrottleError, Throttle.Throttle>>()
    expectTypeOf(Throttle.withPermits(work, 1)).toEqualTypeOf<Throttled<ThrottleError, Throttle.Throttle>>()
    expectTypeOf(work.pipe(Throttle.withPermits({ tokens: 1 })))
      .toEqualTypeOf<Throttled<ThrottleError, Throttle.Throttle>>()
    expectTypeOf(work.pipe(Throttle.withPermitsIfAvailable(1)))
      .toEqualTypeOf<Effect.Effect<Option.Option<"done">, "bad" | ThrottleError, "database" | Throttle.Throttle>>()
    expectTypeOf(Throttle.wait()).toEqualTypeOf<Effect.Effect<void, ThrottleError, Throttle.Throttle>>()
    expectTypeOf(Throttle.takeScoped())
      .toEqualTypeOf<Effect.Effect<Throttle.Permit, ThrottleError, Throttle.Throttle | Scope.Scope>>()
    expectTypeOf(Throttle.estimateWait())
      .toEqualTypeOf<Effect.Effect<Option.Option<Duration.Duration>, never, Throttle.Throttle>>()
    expectTypeOf(Throttle.allow()).toEqualTypeOf<Effect.Effect<boolean, ThrottleError, Throttle.Throttle>>()
    expectTypeOf(Throttle.remaining)
      .toEqualTypeOf<Effect.Effect<ReadonlyArray<Throttle.Remaining>, never, Throttle.Throttle>>()
    expectTypeOf(Throttle.reset).toEqualTypeOf<Effect.Effect<void, never, Throttle.Throttle>>()
    expectTypeOf(Throttle.statistics).toEqualTypeOf<Effect.Effect<Throttle.Statistics, never, Throttle.Throttle>>()
    expectTypeOf(Throttle.Throttle.useSync((throttle) => throttle)).toEqualTypeOf<
      Effect.Effect<Throttle.Throttle, never, Throttle.Throttle>
    >()
  })

  test("a cost is a number or a record of numbers", () => {
    // @ts-expect-error a string
    Throttle.withPermits("1")
    // @ts-expect-error null
    Throttle.wait(null)
    // @ts-expect-error a record of strings
    Throttle.withPermits({ tokens: "1" })
    // @ts-expect-error a bigint
    Throttle.estimateWait(1n)
  })
})

describe("Service classes", () => {
  class GitHub extends Throttle.Service<GitHub>()("app/GitHub", Throttle.rate({ limit: 1 })) {}
  class Search extends Throttle.Service<Search>()("app/Search", Throttle.rate({ limit: 1, maxQueue: 0 })) {}

  test("withPermit adds exactly the policy's error", () => {
    expectTypeOf(work.pipe(GitHub.withPermit)).toEqualTypeOf<Throttled<never, GitHub>>()
    expectTypeOf(work.pipe(Search.withPermit)).toEqualTypeOf<Throttled<ThrottleError, Search>>()
    expectTypeOf(work.pipe(GitHub.withPermit, Search.withPermit))
      .toEqualTypeOf<Throttled<ThrottleError, GitHub | Search>>()
    expectTypeOf(GitHub.withPermit(Effect.succeed(1))).toEqualTypeOf<Effect.Effect<number, never, GitHub>>()
  })

  test("what takes a cost adds ThrottleError", () => {
    expectTypeOf(work.pipe(GitHub.withPermits(2))).toEqualTypeOf<Throttled<ThrottleError, GitHub>>()
    expectTypeOf(GitHub.withPermits(work, { permits: 2 })).toEqualTypeOf<Throttled<ThrottleError, GitHub>>()
    expectTypeOf(work.pipe(GitHub.withPermitsIfAvailable(1)))
      .toEqualTypeOf<Effect.Effect<Option.Option<"done">, "bad" | ThrottleError, "database" | GitHub>>()
    expectTypeOf(GitHub.wait()).toEqualTypeOf<Effect.Effect<void, ThrottleError, GitHub>>()
    expectTypeOf(GitHub.takeScoped(1))
      .toEqualTypeOf<Effect.Effect<Throttle.Permit<"permits">, ThrottleError, GitHub | Scope.Scope>>()
    expectTypeOf(GitHub.estimateWait()).toEqualTypeOf<
      Effect.Effect<Option.Option<Duration.Duration>, never, GitHub>
    >()
    expectTypeOf(GitHub.allow()).toEqualTypeOf<Effect.Effect<boolean, ThrottleError, GitHub>>()
    expectTypeOf(GitHub.remaining).toEqualTypeOf<Effect.Effect<ReadonlyArray<Throttle.Remaining>, never, GitHub>>()
    expectTypeOf(GitHub.reset).toEqualTypeOf<Effect.Effect<void, never, GitHub>>()
    expectTypeOf(GitHub.statistics).toEqualTypeOf<Effect.Effect<Throttle.Statistics, never, GitHub>>()
    expectTypeOf(GitHub.drain("1 second")).toEqualTypeOf<Effect.Effect<number, never, GitHub>>()
    expectTypeOf(GitHub.awaitIdle).toEqualTypeOf<Effect.Effect<void, never, GitHub>>()
    expectTypeOf(GitHub.awaitQueue(1)).toEqualTypeOf<Effect.Effect<void, never, GitHub>>()
  })

  test("are keys of a Throttle, with Layers of themselves", () => {
    expectTypeOf(GitHub.layer).toEqualTypeOf<Layer.Layer<GitHub>>()
    expectTypeOf(Search.layer).toEqualTypeOf<Layer.Layer<Search>>()
    expectTypeOf(GitHub.useSync((throttle) => throttle)).toEqualTypeOf<
      Effect.Effect<Throttle.Throttle, never, GitHub>
    >()
    expectTypeOf(GitHub.policy).toEqualTypeOf<Throttle.Policy<never, "permits">>()
    expectTypeOf(GitHub.key).toEqualTypeOf<"app/GitHub">()
    expectTypeOf(work.pipe(GitHub.withPermit, Effect.provide(GitHub.layer))).toEqualTypeOf<Throttled>()
    expectTypeOf(work.pipe(GitHub.withPermit, Effect.provide(Search.layer))).toEqualTypeOf<Throttled<never, GitHub>>()
    // One does not stand for the other.
    expectTypeOf<Layer.Layer<GitHub>>().not.toExtend<Layer.Layer<Search>>()
    expectTypeOf<Layer.Layer<Throttle.Throttle>>().not.toExtend<Layer.Layer<GitHub>>()
  })

  test("layerWith takes a policy that fails no more than its own", () => {
    const bounded = Throttle.rate({ limit: 1, timeout: 1 })
    expectTypeOf(GitHub.layerWith(Throttle.none)).toEqualTypeOf<Layer.Layer<GitHub>>()
    expectTypeOf(Search.layerWith(bounded)).toEqualTypeOf<Layer.Layer<Search>>()
    expectTypeOf(Search.layerWith(Throttle.none)).toEqualTypeOf<Layer.Layer<Search>>()
    // @ts-expect-error GitHub.withPermit promises not to fail
    GitHub.layerWith(bounded)
    // @ts-expect-error data may have bounds
    GitHub.layerWith(Throttle.fromData({ _tag: "Rate", limit: 1 }))
    // @ts-expect-error a Layer may hold any policy
    GitHub.layerWith(Layer.fresh(Throttle.none))
  })
})

describe("configuration", () => {
  class Free extends Throttle.Service<Free>()("app/Free", Throttle.rate({ limit: 1 })) {}

  test("a policy that is read may fail", () => {
    expectTypeOf(Throttle.config("API")).toEqualTypeOf<Config.Config<Throttle.Policy<ThrottleError>>>()
  })

  test("a default keeps the type of a Layer", () => {
    const config = Config.withDefault(Throttle.config("API"), Throttle.none)
    expectTypeOf(Throttle.layerConfig(config)).toEqualTypeOf<Layer.Layer<Throttle.Throttle, Config.ConfigError>>()
    expectTypeOf(Free.layerConfig(config)).toEqualTypeOf<Layer.Layer<Free, Config.ConfigError>>()
  })

  test("a name is not a configuration", () => {
    // @ts-expect-error a Config is required
    void (() => Throttle.layerConfig("API"))
    // @ts-expect-error a Config is required
    void (() => Free.layerConfig("API"))
  })

  test("a class throttles streams and adds its requirement", () => {
    const source: Stream.Stream<string, "bad"> = Stream.empty
    expectTypeOf(source.pipe(Free.stream())).toEqualTypeOf<Stream.Stream<string, "bad" | ThrottleError, Free>>()
    source.pipe(Free.stream({ cost: (text: string) => text.length }))
    // @ts-expect-error the policy counts no tokens
    source.pipe(Free.stream({ cost: (text: string) => ({ tokens: text.length }) }))
  })
})

describe("maps", () => {
  class Tenants extends ThrottleMap.Service<Tenants>()("app/Tenants", {
    lookup: (_tenant: string) => Throttle.rate({ limit: 1 })
  }) {}

  test("get returns a throttle", () => {
    const use = (map: ThrottleMap.ThrottleMap<string>) => {
      expectTypeOf(map.get("a")).toEqualTypeOf<Throttle.Throttle>()
      expectTypeOf(map.get("a").withPermits(work, 2)).toEqualTypeOf<Throttled<ThrottleError>>()
      expectTypeOf(work.pipe(map.get("a").withPermits(2))).toEqualTypeOf<Throttled<ThrottleError>>()
      expectTypeOf(map.get("a").pause(1)).toEqualTypeOf<Effect.Effect<void>>()
      // @ts-expect-error the key is a string
      map.get(1)
    }
    void use
  })

  test("operations with a key are to be piped, and may fail where there is no room for the key", () => {
    const use = (map: ThrottleMap.ThrottleMap<string>) => {
      expectTypeOf(work.pipe(map.withPermit("a"))).toEqualTypeOf<Throttled<ThrottleError>>()
      expectTypeOf(map.wait("a")).toEqualTypeOf<Effect.Effect<void, ThrottleError>>()
      expectTypeOf(map.pause("a", 1)).toEqualTypeOf<Effect.Effect<void, ThrottleError>>()
      expectTypeOf(map.update("a", Throttle.none)).toEqualTypeOf<Effect.Effect<void>>()
      expectTypeOf(map.drain()).toEqualTypeOf<Effect.Effect<number>>()
      expectTypeOf(map.drainOf("a", 1)).toEqualTypeOf<Effect.Effect<number>>()
      expectTypeOf(map.awaitIdle).toEqualTypeOf<Effect.Effect<void>>()
      expectTypeOf(map.awaitIdleOf("a")).toEqualTypeOf<Effect.Effect<void>>()
      expectTypeOf(map.awaitQueue("a", 1)).toEqualTypeOf<Effect.Effect<void>>()
      expectTypeOf(map.allow("a", 2)).toEqualTypeOf<Effect.Effect<boolean, ThrottleError>>()
      expectTypeOf(map.remaining("a")).toEqualTypeOf<Effect.Effect<ReadonlyArray<Throttle.Remaining>>>()
      expectTypeOf(map.reset("a")).toEqualTypeOf<Effect.Effect<void>>()
      expectTypeOf(map.estimateWait("a")).toEqualTypeOf<Effect.Effect<Option.Option<Duration.Duration>>>()
    }
    void use
  })

  test("a class requires its map", () => {
    expectTypeOf(work.pipe(Tenants.withPermit("a"))).toEqualTypeOf<Throttled<ThrottleError, Tenants>>()
    expectTypeOf(Tenants.wait("a")).toEqualTypeOf<Effect.Effect<void, ThrottleError, Tenants>>()
    expectTypeOf(Tenants.layer).toEqualTypeOf<Layer.Layer<Tenants>>()
    // @ts-expect-error the key is a string
    Tenants.withPermit(1)
  })
})

describe("units", () => {
  const requests = Throttle.rate({ limit: 1 })
  const tokens = Throttle.tokenBucket({ capacity: 1, refill: 1, unit: "tokens" })
  class OpenAI extends Throttle.Service<OpenAI>()(
    "app/OpenAI",
    Throttle.all([
      Throttle.rate({ limit: 1 }),
      Throttle.tokenBucket({ capacity: 1, refill: 1, unit: "tokens", maxQueue: 1 }),
      Throttle.concurrency({ limit: 1 })
    ])
  ) {}
  class Tokens extends Throttle.Service<Tokens>()("app/Tokens", tokens) {}

  test("of a policy are that of its option, or permits", () => {
    expectTypeOf<Throttle.UnitOf<typeof requests>>().toEqualTypeOf<"permits">()
    expectTypeOf<Throttle.UnitOf<typeof tokens>>().toEqualTypeOf<"tokens">()
    expectTypeOf(Throttle.concurrency({ limit: 1, unit: "tokens", maxQueue: 1 }))
      .toEqualTypeOf<Throttle.Policy<ThrottleError, "tokens">>()
    const unit: string = "tokens"
    expectTypeOf(Throttle.rate({ limit: 1, unit })).toEqualTypeOf<Throttle.Policy<never, string>>()
    expectTypeOf(Throttle.shadow(tokens)).toEqualTypeOf<Throttle.Policy<never, "tokens">>()
  })

  test("of an all are those of its parts, wherever they are made", () => {
    expectTypeOf(OpenAI.policy).toEqualTypeOf<Throttle.Policy<ThrottleError, "permits" | "tokens">>()
    expectTypeOf(Throttle.all([requests, tokens])).toEqualTypeOf<Throttle.Policy<never, "permits" | "tokens">>()
    expectTypeOf(Throttle.all([tokens], { timeout: 1 })).toEqualTypeOf<Throttle.Policy<ThrottleError, "tokens">>()
    expectTypeOf(Throttle.all([requests, tokens], { unit: "mails" }))
      .toEqualTypeOf<Throttle.Policy<never, "mails" | "tokens">>()
  })

  test("a cost in one that the policy of a class does not count does not compile", () => {
    OpenAI.withPermits(3)
    OpenAI.withPermits({ tokens: 3 })
    OpenAI.wait({ permits: 0, tokens: 3 })
    // @ts-expect-error token
    OpenAI.withPermits({ token: 3 })
    // @ts-expect-error token
    OpenAI.withPermits(work, { token: 3 })
    // @ts-expect-error token
    OpenAI.withPermitsIfAvailable({ token: 3 })
    // @ts-expect-error token
    OpenAI.wait({ token: 3 })
    // @ts-expect-error token
    OpenAI.takeScoped({ token: 3 })
    // @ts-expect-error token
    OpenAI.estimateWait({ token: 3 })
    // @ts-expect-error token
    OpenAI.allow({ token: 3 })
    // @ts-expect-error token
    OpenAI.usePermits({ token: 3 })
    OpenAI.usePermits({ tokens: 3 })((permit) => permit.settle({ tokens: 1 }))
    // @ts-expect-error token
    OpenAI.usePermits({ tokens: 3 })((permit) => permit.settle({ token: 1 }))
    const wrong = { token: 3 }
    // @ts-expect-error token
    OpenAI.withPermits(wrong)
    // @ts-expect-error no part counts permits
    Tokens.withPermits(3)
    Tokens.withPermits({ tokens: 3 })
    // One permit, which nothing counts.
    Tokens.wait()
  })

  test("another policy of a class must count them too", () => {
    OpenAI.layerWith(Throttle.none)
    OpenAI.layerWith(Throttle.all([requests, tokens, Throttle.rate({ limit: 1, unit: "mails" })]))
    Tokens.layerWith(Throttle.all([requests, tokens]))
    OpenAI.update(Throttle.all([requests, tokens]))
    // @ts-expect-error tokens
    OpenAI.layerWith(requests)
    // @ts-expect-error permits
    OpenAI.layerWith(tokens)
    // @ts-expect-error permits
    OpenAI.update(tokens)
  })

  test("that are not known to the compiler stay open", () => {
    const some: Throttle.Policy = requests
    class Some extends Throttle.Service<Some>()("app/Some", some) {}
    Some.withPermits({ tokens: 3 })
    OpenAI.layerWith(some)
    OpenAI.layerWith(Throttle.fromData({ _tag: "Rate", limit: 1 }))
    const use = (throttle: Throttle.Throttle) => throttle.withPermits({ anything: 1 })
    void use
    Throttle.withPermits({ anything: 1 })
  })
})

describe("the error", () => {
  test("catchTag takes all of it", () => {
    expectTypeOf(failing.pipe(Effect.catchTag("ThrottleError", () => Effect.succeed("caught"))))
      .toEqualTypeOf<Effect.Effect<number | string, "other">>()
    failing.pipe(Effect.catchTag("ThrottleError", (error) => {
      expectTypeOf(error).toEqualTypeOf<ThrottleError>()
      expectTypeOf(error.retryAfter).toEqualTypeOf<Duration.Duration | undefined>()
      expectTypeOf(error.reason).toEqualTypeOf<
        QueueFull | WaitTooLong | TimedOut | PermitsExceedCapacity | Draining | KeysExhausted | StoreError | LeaseLost
      >()
      return Effect.void
    }))
  })

  test("catchReason narrows to one reason and keeps the others", () => {
    const caught = failing.pipe(Effect.catchReason("ThrottleError", "QueueFull", (reason) => {
      expectTypeOf(reason).toEqualTypeOf<QueueFull>()
      expectTypeOf(reason.limit).toEqualTypeOf<number>()
      expectTypeOf(reason.cost).toEqualTypeOf<{ readonly [x: string]: number }>()
      expectTypeOf(reason.parts).toEqualTypeOf<ReadonlyArray<string>>()
      expectTypeOf(reason.throttle).toEqualTypeOf<string>()
      expectTypeOf(reason.queued).toEqualTypeOf<number>()
      return Effect.succeed("caught")
    }))
    expectTypeOf(caught).toExtend<Effect.Effect<number | string, ThrottleError | "other">>()
    failing.pipe(Effect.catchReason("ThrottleError", "WaitTooLong", (reason) => {
      expectTypeOf(reason.limit).toEqualTypeOf<Duration.Duration>()
      return Effect.void
    }))
    // @ts-expect-error there is no such reason
    failing.pipe(Effect.catchReason("ThrottleError", "TooManyRequests", () => Effect.void))
  })

  test("catchReasons takes several, and no reason is forgotten", () => {
    expectTypeOf(failing.pipe(Effect.catchReasons("ThrottleError", {
      QueueFull: () => Effect.succeed("full" as const),
      TimedOut: (reason) => Effect.succeed(reason.limit)
    }))).toExtend<Effect.Effect<number | "full" | Duration.Duration, ThrottleError | "other">>()
  })

  test("the reason narrows by its tag", () => {
    const use = ({ reason }: ThrottleError) => {
      if (
        reason._tag === "PermitsExceedCapacity" || reason._tag === "Draining" || reason._tag === "KeysExhausted" ||
        reason._tag === "LeaseLost"
      ) {
        expectTypeOf(reason).toEqualTypeOf<PermitsExceedCapacity | Draining | KeysExhausted | LeaseLost>()
        // @ts-expect-error waiting does not help
        void reason.retryAfter
      } else {
        expectTypeOf(reason.retryAfter).toEqualTypeOf<Duration.Duration | undefined>()
      }
    }
    void use
  })
})
