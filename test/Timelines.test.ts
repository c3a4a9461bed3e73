/**
 * The one right outcome of 34 scenarios, and of 40 of the orders of the queue, computed by an independent brute-force model with exact fractions.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber } from "effect"
import { Throttle } from "effect-throttle"
import { TestClock } from "effect/testing"
import { now } from "./utils/kit.ts"
import { orderTimelines, type Timeline, timelines } from "./utils/timelines.ts"

type Run = <A, E, R>(self: Effect.Effect<A, E, R>, cost: Throttle.Cost) => Effect.Effect<A, unknown, R>

/** Plays a timeline, and compares each outcome. */
const play = (timeline: Timeline, throttle: Throttle.Throttle, run: Run) =>
  Effect.gen(function*() {
    const starts: Array<number | undefined> = timeline.calls.map(() => undefined)
    const fibers: Array<Fiber.Fiber<void, any>> = []
    // Every instant at which something happens, in order; calls of one instant in the order of the list.
    const instants = [
      ...new Set(
        timeline.calls.flatMap((call) => [call.at, ...(call.interruptAt === undefined ? [] : [call.interruptAt])])
      )
    ].toSorted((a, b) => a - b)
    for (const instant of instants) {
      yield* TestClock.adjust(instant - (yield* now))
      for (let i = 0; i < timeline.calls.length; i++) {
        const call = timeline.calls[i]!
        if (call.at === instant) {
          fibers[i] = yield* Effect.forkChild(
            run(
              Effect.flatMap(now, (at) => {
                starts[i] = at
                return Effect.sleep(call.runs ?? 0)
              }),
              call.cost ?? call.permits ?? 1
            ).pipe(Throttle.withCaller({
              key: call.caller ?? "",
              ...(call.weight === undefined ? undefined : { weight: call.weight }),
              ...(call.priority === undefined ? undefined : { priority: call.priority })
            })),
            { startImmediately: true }
          )
        }
        if (call.interruptAt === instant) yield* Fiber.interrupt(fibers[i]!)
      }
    }
    yield* TestClock.adjust("1 hour")
    for (let i = 0; i < timeline.calls.length; i++) {
      const expected = timeline.expect[i]!
      const exit = yield* Fiber.await(fibers[i]!)
      const where = `call ${i}`
      if ("start" in expected) {
        assert.isDefined(starts[i], `${where} never started: ${exit}`)
        assert.isAtLeast(starts[i]!, expected.start - 1e-3, `${where} too early`)
        assert.isAtMost(starts[i]!, expected.start + 1, `${where} too late`)
      } else {
        assert.isTrue(Exit.isFailure(exit), `${where} should have failed`)
        if (!Exit.isFailure(exit)) continue
        if ("rejected" in expected) {
          assert.isUndefined(starts[i], `${where} started`)
          const error = Cause.findErrorOption(exit.cause)
          assert.strictEqual(error._tag === "Some" && error.value.reason._tag, expected.rejected, where)
        } else {
          assert.isTrue(Cause.hasInterrupts(exit.cause), `${where} should have been interrupted`)
        }
      }
    }
    assert.strictEqual((yield* throttle.statistics).waiting, 0)
    assert.strictEqual((yield* throttle.statistics).running, 0)
  })

const policyOf = (timeline: Timeline): Throttle.Policy<any> => Throttle.fromData(timeline.policy as any)

describe("timelines", () => {
  it("are all there", () => {
    assert.deepStrictEqual([timelines.length, orderTimelines.length], [34, 40])
  })

  const all = [...timelines, ...orderTimelines]

  it.effect.each(all)(
    "provided: $name",
    (timeline) =>
      Effect.flatMap(Throttle.make(policyOf(timeline)), (throttle) => play(timeline, throttle, throttle.withPermits))
  )

  // Inline use has no cost but one permit.
  const plain = all.filter(({ calls }) => calls.every(({ cost, permits = 1 }) => cost === undefined && permits === 1))

  it.effect.each(plain)("inline: $name", (timeline) => {
    const policy = policyOf(timeline)
    return Effect.flatMap(Throttle.inline(policy), (throttle) => play(timeline, throttle, (self) => policy(self)))
  })
})
