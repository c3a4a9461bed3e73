/** What the fields say is true: of the quota, of what is left, and of when there is more. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Option, Schema } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { TestClock } from "effect/testing"
import { namesOf, quotaOf, writerOf } from "../../src/http/internal/fields.ts"
import * as Plan from "../../src/internal/plan.ts"
import { capacityOf, partsOf } from "../../src/internal/remaining.ts"
import { remainingOfKey } from "../utils/kit.ts"

const planOf = (policy: Throttle.Policy<any>) => Plan.make(policy.data)

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

describe("quota and window", () => {
  it.each<[policy: Throttle.Policy<any>, quota: number, window: number | undefined]>([
    [Throttle.rate({ limit: 100, per: "1 minute" }), 100, 60],
    [Throttle.rate({ limit: 100, per: "1 minute", burst: 20 }), 100, 60],
    [Throttle.rate({ limit: 10, burst: 50 }), 60, 6],
    [Throttle.rate({ limit: 10, per: "100 millis" }), 100, 1],
    [Throttle.rate({ limit: 1, per: "1500 millis" }), 1, 2],
    [Throttle.rate({ limit: 3, per: "1 second" }), 3, 1],
    [Throttle.rate({ limit: 7, per: "1 hour" }), 7, 3_600],
    [Throttle.tokenBucket({ capacity: 1_000, refill: 10 }), 1_000, 100],
    [Throttle.tokenBucket({ capacity: 500, refill: 500, per: "1 minute" }), 500, 60],
    [Throttle.window({ limit: 100, per: "1 hour" }), 100, 3_600],
    [Throttle.window({ limit: 100, per: "1 day", kind: "fixed" }), 100, 86_400],
    [Throttle.window({ limit: 10, per: "250 millis" }), 40, 1],
    [Throttle.window({ kind: "calendar", limit: 1_000, per: "day", zone: "America/Los_Angeles" }), 1_000, 86_400],
    [Throttle.window({ kind: "calendar", limit: 1_000, per: "week" }), 1_000, 604_800],
    [Throttle.window({ kind: "calendar", limit: 1_000, per: "month" }), 1_000, 2_678_400],
    [Throttle.spacing({ interval: "100 millis" }), 10, 1],
    [Throttle.spacing({ interval: "5 seconds" }), 1, 5],
    [Throttle.spacing({ interval: "5 seconds", from: "end" }), 1, 5],
    [Throttle.concurrency({ limit: 5 }), 5, undefined]
  ])("%s", (policy, quota, window) => {
    const parts = partsOf(planOf(policy))
    assert.strictEqual(parts.length, 1)
    assert.deepStrictEqual(quotaOf(parts[0]!), { quota, window })
  })

  it.prop("spending the quota evenly is always allowed, and it is never less than may start at once", {
    limit: int(1, 1_000),
    per: int(1, 100_000),
    burst: int(0, 1_000)
  }, ({ burst, limit, per }) => {
    for (
      const policy of [
        Throttle.rate({ limit, per, burst }),
        Throttle.tokenBucket({ capacity: burst + 1, refill: limit, per }),
        Throttle.window({ limit, per })
      ]
    ) {
      const part = partsOf(planOf(policy))[0]!
      const { quota, window } = quotaOf(part)
      const interval = per / limit
      assert.isAtLeast(quota, capacityOf(part))
      assert.isAtMost(quota * interval, window! * 1_000 * (1 + 1e-6))
      // No whole quota more would be.
      assert.isAbove((quota + 1) * interval, window! * 1_000)
    }
  })
})

describe("names", () => {
  const name = "default"

  it("of one part: its own, or the middleware's", () => {
    assert.deepStrictEqual(namesOf(planOf(Throttle.rate({ limit: 1 })), name), ["default"])
    assert.deepStrictEqual(namesOf(planOf(Throttle.rate({ limit: 1, name: "paid" })), name), ["paid"])
  })

  it("of several: their own, or what they say", () =>
    assert.deepStrictEqual(
      namesOf(
        planOf(Throttle.all([Throttle.rate({ limit: 1, name: "burst" }), Throttle.concurrency({ limit: 2 })])),
        name
      ),
      ["burst", "at most 2 at once"]
    ))

  it("are strings of a structured field, whatever they are", () => {
    const plan = planOf(Throttle.rate({ limit: 1, name: "a \"b\" \\ caf\u00e9\r\nX: y \u{1f600}" }))
    assert.deepStrictEqual(writerOf("draft-10", plan, name)([{ permits: 1, untilMore: undefined }]), {
      "ratelimit-policy": `"a \\"b\\" \\\\ caf???X: y ??";q=1;w=1`,
      ratelimit: `"a \\"b\\" \\\\ caf???X: y ??";r=1`
    })
  })

  it("numbers are within what a structured field can hold", () => {
    const policy = Throttle.window({ limit: Number.MAX_SAFE_INTEGER, per: "1 millis" })
    assert.strictEqual(
      writerOf("draft-10", planOf(policy), name)([{ permits: 1, untilMore: 1e30 }])["ratelimit-policy"],
      `"default";q=999999999999999;w=1`
    )
  })

  it("so are those of what is left, and of permits that are held", () => {
    const most = Number.MAX_SAFE_INTEGER
    const plan = planOf(Throttle.concurrency({ limit: most }))
    const left = [{ permits: most, untilMore: undefined }]
    assert.deepStrictEqual(writerOf("draft-10", plan, name)(left), {
      "ratelimit-policy": `"default";q=999999999999999;qu="concurrent-requests"`,
      ratelimit: `"default";r=999999999999999`
    })
    assert.deepStrictEqual(writerOf("draft-7", plan, name)(left), {
      ratelimit: "limit=999999999999999, remaining=999999999999999, reset=0"
    })
  })
})

const Timing = Schema.Union([
  Schema.Struct({ _tag: Schema.Literal("Rate"), limit: int(1, 7), per: int(5, 4_000), burst: int(0, 4) }),
  Schema.Struct({ _tag: Schema.Literal("TokenBucket"), capacity: int(1, 6), refill: int(1, 7), per: int(5, 4_000) }),
  Schema.Struct({
    _tag: Schema.Literal("Window"),
    limit: int(1, 5),
    per: int(5, 4_000),
    kind: Schema.Literals(["sliding", "fixed"])
  }),
  Schema.Struct({ _tag: Schema.Literal("Spacing"), interval: int(1, 2_000), align: Schema.Boolean })
])

describe("what is left", () => {
  it.effect.prop("so many may start at once and no more, or there are more when it says", {
    data: Timing,
    gaps: Schema.Array(int(0, 1_500)).check(Schema.isMaxLength(12)),
    waits: Schema.Boolean
  }, ({ data, gaps, waits }) =>
    Effect.gen(function*() {
      const policy = Throttle.all([Throttle.fromData(data)], { maxQueue: 0 })
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => policy })
      const look = () => remainingOfKey(map, "a")[0]!
      for (const gap of gaps) {
        yield* TestClock.adjust(gap)
        yield* Effect.ignore(map.wait("a"))
      }
      const { permits: left, untilMore: more } = look()
      if (waits && more !== undefined) {
        // To the millisecond: not one earlier, either. Less than a nanosecond beside a whole millisecond is rounding.
        const millis = Math.ceil(more / 1e6 - 1e-6)
        if (more > 1e6) {
          yield* TestClock.adjust(millis - 1)
          assert.strictEqual(look().permits, left)
          yield* TestClock.adjust(1)
        } else yield* TestClock.adjust(millis)
        assert.isAbove(look().permits, left)
      } else {
        let started = 0
        while (Option.isSome(yield* Effect.option(map.wait("a")))) started++
        assert.strictEqual(started, left)
      }
    }).pipe(Effect.scoped), { arbitrary: { runs: 300 } })

  it.effect("is nothing while others wait, or in a pause; in shadow, what would be left in force", () =>
    Effect.gen(function*() {
      const policy = Throttle.all([Throttle.rate({ limit: 1 }), Throttle.concurrency({ limit: 2 })])
      const map = yield* ThrottleMap.make({
        lookup: (key: string) => key === "shadow" ? Throttle.shadow(policy) : policy
      })
      yield* map.pause("a", "5 seconds")
      assert.deepStrictEqual(remainingOfKey(map, "a"), [{ permits: 0, untilMore: 5e9 }, {
        permits: 0,
        untilMore: undefined
      }])
      yield* map.resume("a")
      assert.deepStrictEqual(remainingOfKey(map, "a"), [{ permits: 1, untilMore: undefined }, {
        permits: 2,
        untilMore: undefined
      }])
      yield* map.withPermit("b")(Effect.void)
      yield* Effect.forkChild(map.withPermit("b")(Effect.void), { startImmediately: true })
      assert.deepStrictEqual(remainingOfKey(map, "b"), [{ permits: 0, untilMore: 2e9 }, {
        permits: 0,
        untilMore: undefined
      }])
      assert.deepStrictEqual(remainingOfKey(map, "shadow").map(({ permits }) => permits), [1, 2])
    }))

  it.effect("spacing from the end is one part, of which nothing is left while one runs", () =>
    Effect.gen(function*() {
      const policy = Throttle.spacing({ interval: "2 seconds", from: "end" })
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => policy })
      yield* map.withPermit("a")(Effect.sync(() => {
        assert.deepStrictEqual(remainingOfKey(map, "a"), [{ permits: 0, untilMore: undefined }])
      }))
      assert.deepStrictEqual(remainingOfKey(map, "a"), [{ permits: 0, untilMore: 2e9 }])
    }))
})
