/** What it costs to be interrupted while waiting, and that nothing is left behind. */
import { Duration, Effect, Fiber, Option, References } from "effect"
import { Throttle } from "effect-throttle"
import { insist, quick, rounds, type Run } from "../harness.ts"
import { atMost, count, ratio, type Section, us } from "../report.ts"

const program = (share: "all" | "half", n: number) =>
  Effect.gen(function*() {
    const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
    const first = yield* Effect.forkChild(throttle.withPermit(Effect.never), { startImmediately: true })
    const fibers: Array<Fiber.Fiber<void, unknown>> = []
    for (let i = 0; i < n; i++) {
      fibers.push(yield* Effect.forkChild(throttle.withPermit(Effect.void), { startImmediately: true }))
    }
    insist((yield* throttle.statistics).waiting === n, `${n} wait`)
    const leaving = share === "all" ? fibers : fibers.filter((_, i) => i % 2 === 0)

    const start = process.hrtime.bigint()
    yield* Fiber.interruptAll(leaving)
    const took = Number(process.hrtime.bigint() - start)

    yield* Fiber.interrupt(first)
    yield* Fiber.awaitAll(fibers)
    const { admitted, interrupted, running, waiting } = yield* throttle.statistics
    insist(waiting === 0 && running === 0, "the queue is empty and no call runs")
    insist(interrupted === leaving.length && admitted === n - leaving.length + 1, "who left and who ran add up to all")
    insist(Option.isSome(yield* throttle.withPermitsIfAvailable(Effect.void, 1)), "the permit is free")
    return took
  })

/** A call that leaves the queue of a rate was not charged. */
const uncharged = (n: number) =>
  Effect.gen(function*() {
    const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, per: "1 day" }))
    yield* throttle.wait()
    const fibers: Array<Fiber.Fiber<void, unknown>> = []
    for (let i = 0; i < n; i++) fibers.push(yield* Effect.forkChild(throttle.wait(), { startImmediately: true }))
    const start = process.hrtime.bigint()
    yield* Fiber.interruptAll(fibers)
    const took = Number(process.hrtime.bigint() - start)
    const { waiting } = yield* throttle.statistics
    const next = Option.getOrThrow(yield* throttle.estimateWait())
    insist(waiting === 0, "the queue is empty")
    insist(Duration.toMillis(next) <= Duration.toMillis("1 day"), "no call that left was charged")
    return took
  })

export const own = (what: string, size: string): Run => {
  const n = Number(size)
  const effect = what === "rate" ? uncharged(n) : program(what as "all" | "half", n)
  const run = Effect.scoped(Effect.provideService(effect, References.TracerEnabled, false))
  const left = what === "half" ? n / 2 : n
  return async () => ({ us: await Effect.runPromise(run) / left / 1e3 })
}

export const section = async (): Promise<Section> => {
  const sizes = [10_000, quick ? 20_000 : 100_000]
  const kinds = { all: "all interrupted", half: "every second one interrupted", rate: "all interrupted, on `rate`" }
  const seen = await rounds(
    { warmup: 1, count: quick ? 1 : 3 },
    Object.fromEntries(
      Object.keys(kinds).flatMap((kind) => sizes.map((n) => [`${kind} ${n}`, ["leaving", kind, n]]))
    )
  )
  return {
    title: "Interrupted while waiting",
    about:
      "µs for each waiter that is interrupted, the fiber's own end included. Afterwards the line is empty, nothing " +
      "is held or charged, and who left and who ran add up to all; otherwise the bench fails.",
    columns: [...sizes.map((n) => `µs, ${count(n)}`), "ratio"],
    rows: Object.entries(kinds).map(([kind, what]) => {
      const [few, many] = sizes.map((n) => seen[`${kind} ${n}`]!.us!)
      return atMost(what, [us(few!), us(many!), ratio(many! / few!)], many! / few!, 1.4)
    })
  }
}
