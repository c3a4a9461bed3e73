/**
 * The timelines of throttles in memory, on a store: the one in memory and Redis, which is told the time. Time goes on only
 * when every answer is there.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Duration, Effect, Exit, Fiber, Layer } from "effect"
import { Throttle } from "effect-throttle"
import { MemoryStore, RedisStore, RedisThrottle, ThrottleStore } from "effect-throttle/redis"
import { Redis } from "effect/persistence"
import { describeRedis, RedisLive, uniqueKey } from "../utils/redis.ts"
import { type Timeline, timelines } from "../utils/timelines.ts"

/** A clock that stands still until it is told to go on to the next sleeper. */
const heldClock = () => {
  const state = { now: 0 }
  const sleepers = new Set<{ readonly at: number; readonly wake: () => void }>()
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: () => state.now,
    currentTimeMillis: Effect.sync(() => state.now),
    currentTimeNanosUnsafe: () => BigInt(Math.round(state.now * 1e6)),
    currentTimeNanos: Effect.sync(() => BigInt(Math.round(state.now * 1e6))),
    monotonicTimeNanosUnsafe: () => BigInt(Math.round(state.now * 1e6)),
    monotonicTimeNanos: Effect.sync(() => BigInt(Math.round(state.now * 1e6))),
    sleep: (duration) =>
      Effect.callback((resume) => {
        const sleeper = { at: state.now + Duration.toMillis(duration), wake: () => resume(Effect.void) }
        sleepers.add(sleeper)
        return Effect.sync(() => void sleepers.delete(sleeper))
      })
  }
  const next = () => Math.min(...Array.from(sleepers, ({ at }) => at))
  const goTo = (now: number) => {
    state.now = now
    for (const sleeper of sleepers) {
      if (sleeper.at > now) continue
      sleepers.delete(sleeper)
      sleeper.wake()
    }
  }
  return { clock, state, next, goTo }
}

/** A store, and how many of its answers are still to come. */
const watched = (store: ThrottleStore.ThrottleStore) => {
  const open = { count: 0 }
  const counted = <A, E>(self: Effect.Effect<A, E>) =>
    Effect.acquireUseRelease(Effect.sync(() => open.count++), () => self, () => Effect.sync(() => open.count--))
  return {
    open,
    store: {
      ...store,
      decide: (request) => counted(store.decide(request)),
      renew: (...args) => counted(store.renew(...args)),
      pause: (...args) => counted(store.pause(...args))
    } satisfies ThrottleStore.ThrottleStore
  }
}

const turn = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))

const play = (timeline: Timeline, makeStore: (now: () => number) => ThrottleStore.ThrottleStore) =>
  Effect.suspend(() => {
    const held = heldClock()
    return Effect.provideService(Effect.scoped(playOn(held, timeline, makeStore)), Clock.Clock, held.clock)
  })

const playOn = (
  { goTo, next, state }: ReturnType<typeof heldClock>,
  timeline: Timeline,
  makeStore: (now: () => number) => ThrottleStore.ThrottleStore
) =>
  Effect.gen(function*() {
    const { open, store } = watched(makeStore(() => Math.round(state.now * 1e3)))
    const throttle = yield* RedisThrottle.make(Throttle.fromData(timeline.policy as never), {
      key: uniqueKey("timeline")
    }).pipe(Effect.provideService(ThrottleStore.ThrottleStore, store))
    const starts: Array<number | undefined> = timeline.calls.map(() => undefined)
    const fibers: Array<Fiber.Fiber<void, any>> = []
    const settled = Effect.gen(function*() {
      for (let quiet = 0; quiet < 3; quiet = open.count === 0 ? quiet + 1 : 0) yield* turn
    })
    const instants = new Set(timeline.calls.flatMap(({ at, interruptAt = at }) => [at, interruptAt]))
    yield* settled
    while (true) {
      const coming = [...instants].filter((at) => at >= state.now)
      const to = Math.min(next(), ...coming)
      if (to === Infinity) break
      assert.isBelow(to, 3_600_000, "it goes on for ever")
      goTo(to)
      for (const [i, call] of timeline.calls.entries()) {
        if (call.at === to && instants.has(to)) {
          fibers[i] = yield* Effect.forkChild(
            throttle.withPermits(
              Effect.suspend(() => {
                starts[i] = state.now
                return Effect.sleep(call.runs ?? 0)
              }),
              call.permits ?? 1
            ),
            { startImmediately: true }
          )
        }
        if (call.interruptAt === to && instants.has(to)) yield* Effect.forkChild(Fiber.interrupt(fibers[i]!))
      }
      instants.delete(to)
      yield* settled
    }
    for (const [i, expected] of timeline.expect.entries()) {
      const exit = yield* Fiber.await(fibers[i]!)
      const where = `call ${i}`
      if ("start" in expected) {
        assert.isDefined(starts[i], `${where} never started: ${exit}`)
        assert.isAtLeast(starts[i]!, expected.start - 1e-3, `${where} too early`)
        assert.isAtMost(starts[i]!, expected.start + 1, `${where} too late`)
      } else if ("rejected" in expected) {
        assert.isUndefined(starts[i], `${where} started`)
        const error = Exit.isFailure(exit) ? Cause.findErrorOption(exit.cause) : undefined
        assert.strictEqual(error?._tag === "Some" && error.value.reason._tag, expected.rejected, where)
      } else {
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterrupts(exit.cause), `${where} should have been interrupted`)
      }
    }
    const { running, waiting } = yield* throttle.statistics
    assert.deepStrictEqual([running, waiting], [0, 0])
  })

/** What several processes cannot share has no timeline here. */
const shared = timelines.filter(({ policy }) => !JSON.stringify(policy).includes("\"from\":\"end\""))

describe("timelines on the store in memory", () => {
  it.live.each(shared)("$name", (timeline) => play(timeline, (now) => MemoryStore.make(now, (at) => at / 1e6)))
})

describeRedis("timelines on Redis", () => {
  it.live.each(shared)(
    "$name",
    (timeline) =>
      Effect.flatMap(Redis.Redis, (redis) => play(timeline, (now) => RedisStore.make(redis, now))).pipe(
        Effect.provide(Layer.orDie(RedisLive))
      )
  )
})
