/**
 * Work that must not grow with what a throttle remembers. CPU time at a large size beside that at a small one, as a ratio
 * of medians of interleaved rounds: linear work would give the ratio of the sizes.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scheduler, Scope } from "effect"
import { Throttle } from "effect-throttle"

/** Milliseconds of CPU time an effect takes, without a yield. */
const timed = <A, E>(self: Effect.Effect<A, E>): Effect.Effect<number, E> =>
  Effect.suspend(() => {
    const before = process.cpuUsage()
    return Effect.map(self, () => {
      const { system, user } = process.cpuUsage(before)
      return (system + user) / 1e3
    })
  })

const median = (numbers: ReadonlyArray<number>): number => numbers.toSorted((a, b) => a - b)[numbers.length >> 1]!

/** How many times as long a step takes at the large size as at the small one. `measure` gives the time of one step. */
const growth = (sizes: readonly [number, number], measure: (size: number) => Effect.Effect<number, unknown>): number =>
  Effect.runSync(
    Effect.gen(function*() {
      const times: readonly [Array<number>, Array<number>] = [[], []]
      yield* measure(sizes[0])
      for (let round = 0; round < 5; round++) {
        times[0].push(yield* measure(sizes[0]))
        times[1].push(yield* measure(sizes[1]))
      }
      return median(times[1]) / median(times[0])
    }).pipe(Effect.provideService(Scheduler.MaxOpsBeforeYield, Number.MAX_SAFE_INTEGER), Effect.orDie)
  )

const made = (policy: Throttle.Policy<any>) =>
  Effect.flatMap(Scope.make(), (scope) => Scope.provide(Throttle.make(policy), scope))

/** So many open permits of a throttle, each with its scope. */
const opened = Effect.fnUntraced(function*(throttle: Throttle.Throttle, count: number, cost = 1) {
  const permits: Array<readonly [Throttle.Permit, Scope.Closeable]> = []
  for (let i = 0; i < count; i++) {
    const scope = yield* Scope.make()
    permits.push([yield* Scope.provide(throttle.takeScoped(cost), scope), scope])
  }
  return permits
})

const bucket = (capacity: number) => Throttle.tokenBucket({ capacity, refill: 1, per: "1 hour" })
const window = (limit: number) => Throttle.window({ limit, per: "1 hour" })

describe("open permits of a bucket", () => {
  it.each(["first to last", "last to first"])("are closed in the same time each, %s", (order) => {
    const ratio = growth([1_000, 30_000], (size) =>
      Effect.gen(function*() {
        const permits = yield* opened(yield* made(bucket(size)), size)
        if (order === "last to first") permits.reverse()
        const closing = Effect.forEach(permits, ([, scope]) => Scope.close(scope, Exit.void), { discard: true })
        return (yield* timed(closing)) / size
      }))
    assert.isBelow(ratio, 8)
  })

  it("are settled in the same time each", () => {
    const ratio = growth([1_000, 30_000], (size) =>
      Effect.gen(function*() {
        const permits = yield* opened(yield* made(bucket(2 * size)), size, 2)
        return (yield* timed(Effect.forEach(permits.slice(0, 500), ([permit]) => permit.settle(1)))) / 500
      }))
    assert.isBelow(ratio, 8)
  })
})

describe("a sliding window with many starts in its log", () => {
  for (const cost of [3, 90_000]) {
    it(`rejects a call of ${cost} permits in the same time`, () => {
      const ratio = growth([2_000, 100_000], (size) =>
        Effect.gen(function*() {
          const throttle = yield* made(window(size))
          for (let i = 0; i < size; i++) yield* throttle.wait()
          const asking = throttle.withPermitsIfAvailable(Effect.void, Math.min(cost, size * 0.9))
          return (yield* timed(Effect.replicateEffect(asking, 1_000))) / 1_000
        }))
      assert.isBelow(ratio, 15)
    })
  }

  it("settles a call in the same time", () => {
    const ratio = growth([1_000, 50_000], (size) =>
      Effect.gen(function*() {
        const permits = yield* opened(yield* made(window(2 * size)), size, 2)
        const some = permits.filter((_, i) => i % (size / 500) === 0)
        return (yield* timed(Effect.forEach(some, ([permit]) => permit.settle(1)))) / 500
      }))
    assert.isBelow(ratio, 15)
  })

  it("cancels a call in the same time, where all start at one instant", () => {
    const ratio = growth([1_000, 50_000], (size) =>
      Effect.gen(function*() {
        const permits = yield* opened(yield* made(window(size)), size)
        return (yield* timed(Effect.forEach(permits.slice(0, 500), ([permit]) => permit.cancel))) / 500
      }))
    assert.isBelow(ratio, 15)
  })
})
