/**
 * A bucket whose calls are settled, cancelled and updated, beside a replay of its history with the costs that came out.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Option, Scope } from "effect"
import { Throttle } from "effect-throttle"
import { TestClock } from "effect/testing"
import { randomNumbers } from "./utils/random-program.ts"

/** `interval`: microseconds a permit. */
interface Bucket {
  readonly capacity: number
  readonly interval: number
}

const policyOf = ({ capacity, interval }: Bucket) =>
  Throttle.tokenBucket({ capacity, refill: 1, per: Duration.micros(BigInt(interval)) })

type Event =
  | { readonly at: number; cost: number }
  | { readonly at: number; readonly from: Bucket; readonly to: Bucket }

/** Microseconds until the bucket is empty. An update keeps what is spent, but no more than the smaller bucket has. */
const replay = (history: ReadonlyArray<Event>, first: Bucket, now: number): number => {
  let [level, at, { interval }] = [0, 0, first]
  for (const event of history) {
    level = Math.max(0, level - (event.at - at))
    at = event.at
    if ("cost" in event) level += event.cost * interval
    else {
      const spent = level / event.from.interval
      interval = event.to.interval
      level = (spent - Math.max(0, Math.min(spent, event.from.capacity) - event.to.capacity)) * interval
    }
  }
  return Math.max(0, level - (now - at))
}

const play = (seed: number, owes: boolean): void => {
  const next = randomNumbers(seed)
  const int = (n: number) => Math.floor(next() * n)
  const bucket = (): Bucket => ({ capacity: 1 + int(40), interval: 2 ** int(5) * 50 })
  let now = 0
  // Only read: nobody waits here.
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: () => now / 1e3,
    currentTimeMillis: Effect.sync(() => now / 1e3),
    currentTimeNanosUnsafe: () => BigInt(now) * 1_000n,
    currentTimeNanos: Effect.sync(() => BigInt(now) * 1_000n),
    monotonicTimeNanosUnsafe: () => BigInt(now) * 1_000n,
    monotonicTimeNanos: Effect.sync(() => BigInt(now) * 1_000n),
    sleep: () => Effect.never
  }
  const program = Effect.gen(function*() {
    let own = bucket()
    const first = own
    const throttle = yield* Throttle.make(policyOf(own))
    const history: Array<Event> = []
    const open: Array<{ readonly charge: { cost: number }; permit: Throttle.Permit; scope: Scope.Closeable }> = []
    for (let step = 0; step < 150; step++) {
      const move = next()
      now += move < 0.4 ? 0 : int((move < 0.97 ? 2 : 60) * own.interval)
      const kind = next()
      if (kind < 0.5) {
        const cost = 1 + int(own.capacity)
        if (!Option.exists(yield* throttle.estimateWait(cost), Duration.isZero)) continue
        const scope = yield* Scope.make()
        const permit = yield* Scope.provide(throttle.takeScoped(cost), scope)
        const charge = { at: now, cost }
        history.push(charge)
        if (next() < 0.6) open.push({ charge, permit, scope })
        else yield* Scope.close(scope, Exit.void)
      } else if (kind < 0.97 && open.length > 0) {
        const [{ charge, permit, scope }] = open.splice(int(open.length), 1) as [typeof open[number]]
        const actual = owes && next() < 0.2 ? charge.cost + int(own.capacity) : int(charge.cost + 1)
        yield* permit.settle(actual)
        yield* Scope.close(scope, Exit.void)
        if (actual > charge.cost) history.push({ at: now, cost: actual - charge.cost })
        else charge.cost = actual
      } else if (kind >= 0.97) {
        const to = bucket()
        yield* throttle.update(policyOf(to))
        history.push({ at: now, from: own, to })
        own = to
      }
      // A call of all permits waits until the bucket is empty.
      const wait = Duration.toMillis(Option.getOrThrow(yield* throttle.estimateWait(own.capacity))) * 1e3
      assert.closeTo(wait, replay(history, first, now), 2, `seed ${seed}, step ${step}`)
    }
  })
  Effect.runSync(Effect.scoped(program).pipe(Effect.provideService(Clock.Clock, clock)))
}

describe("a bucket is as full as if each call had cost what it came to", () => {
  it("where calls are settled for less, across updates", () => {
    for (let seed = 1; seed <= 40; seed++) play(seed, false)
  })

  it("where calls are settled for more than there is, across updates", () => {
    for (let seed = 1; seed <= 40; seed++) play(seed, true)
  })

  it.effect("a cancelled call comes back although another owed more than a smaller bucket has", () =>
    Effect.gen(function*() {
      const bucket = (capacity: number) => Throttle.tokenBucket({ capacity, refill: 1, per: 1_000 })
      const throttle = yield* Throttle.make(bucket(10))
      const scope = yield* Scope.make()
      const first = yield* Scope.provide(throttle.takeScoped(5), scope)
      const second = yield* Scope.provide(throttle.takeScoped(5), scope)
      // 15 are spent of 10, and 5 owed: of a bucket of 5 that makes 10, and without the second call 5.
      yield* first.settle(10)
      yield* throttle.update(bucket(5))
      assert.deepStrictEqual(yield* throttle.estimateWait(5), Option.some(Duration.seconds(10)))
      yield* second.cancel
      assert.deepStrictEqual(yield* throttle.estimateWait(5), Option.some(Duration.seconds(5)))
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* throttle.estimateWait(5), Option.some(Duration.zero))
    }))
})
