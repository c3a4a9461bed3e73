/** What happens after the event loop was blocked. */
import { Effect, Fiber } from "effect"
import { Throttle } from "effect-throttle"
import { quick } from "../harness.ts"
import { atMost, count, type Section } from "../report.ts"

const limit = 1_000
const blocked = quick ? 500 : 2_000
const after = 5

const now = (): number => Number(process.hrtime.bigint()) / 1e6

const program = Effect.gen(function*() {
  const starts: Array<number> = []
  const start = Effect.sync(() => starts.push(now())).pipe(Throttle.rate({ limit }))
  const fibers: Array<Fiber.Fiber<number>> = []
  for (let i = 0; i < 2 * blocked; i++) fibers.push(yield* Effect.forkChild(start, { startImmediately: true }))
  yield* Effect.sleep("300 millis")
  const end = yield* Effect.sync(() => {
    const end = now() + blocked
    while (now() < end);
    return end
  })
  yield* Effect.sleep("300 millis")
  yield* Fiber.interruptAll(fibers)
  return starts.filter((at) => at > end && at <= end + after).length
})

export const section = async (): Promise<Section> => {
  const atOnce = await Effect.runPromise(program)
  return {
    title: "Event loop blocked",
    about:
      `${
        count(limit)
      } per second, saturated; the event loop stands still for ${blocked} ms in the middle. Starts within ` +
      `${after} ms after it: the catch-up is 10 ms, one may start by its capacity, and ${after} fall due meanwhile.`,
    columns: ["starts"],
    rows: [atMost(`${count(limit * blocked / 1_000)} missed`, [String(atOnce)], atOnce, 10 + 1 + after)]
  }
}
