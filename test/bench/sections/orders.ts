/** What a waiting call costs in each order of the queue, and what callers leave behind. */
import { Effect, Fiber, PartitionedSemaphore, References } from "effect"
import { Throttle } from "effect-throttle"
import PQueue from "p-queue"
import { collectGarbage, quick, rounds, type Run, timed } from "../harness.ts"
import { atMost, count, ns, ratio, type Section, us } from "../report.ts"

type Wrap = (key: string) => <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** The caller is named once, around all its calls; this is around each call. */
const wraps: Record<string, () => Wrap> = {
  bare: () => () => (self) => self,
  arrival: () => {
    const limited = Throttle.concurrency({ limit: 1 })
    return () => limited
  },
  priority: () => {
    const limited = Throttle.concurrency({ limit: 1, order: "priority", ageing: "1 second" })
    return () => limited
  },
  fair: () => {
    const limited = Throttle.concurrency({ limit: 1, order: "fair" })
    return () => limited
  },
  partitioned: () => {
    const semaphore = PartitionedSemaphore.makeUnsafe<string>({ permits: 1 })
    return (key) => PartitionedSemaphore.withPermit(semaphore, key)
  }
}

/** The calls of all callers together. */
const total = 20_000

/** So many callers that each make one call after the other: as many calls wait. */
const program = (wrap: Wrap, callers: number) =>
  Effect.gen(function*() {
    const fibers: Array<Fiber.Fiber<void>> = []
    for (let i = 0; i < callers; i++) {
      const key = `caller ${i}`
      const call = wrap(key)(Effect.yieldNow)
      const calls = Effect.gen(function*() {
        for (let j = 0; j < total / callers; j++) yield* call
      })
      fibers.push(yield* Effect.forkChild(Throttle.withCaller({ key, priority: i % 4 })(calls)))
    }
    yield* Fiber.joinAll(fibers)
  })

const task = (): Promise<void> => Promise.resolve()

const promises = (limit: (task: () => Promise<void>, i: number) => Promise<unknown>, callers: number) =>
  Promise.all(Array.from({ length: callers }, async (_, i) => {
    for (let j = 0; j < total / callers; j++) await limit(task, i)
  }))

const queued = (name: string, callers: number): Promise<unknown> => {
  if (name === "promise") return promises((task) => task(), callers)
  const queue = new PQueue({ concurrency: 1 })
  return promises((task, i) => queue.add(task, { priority: i % 4 }), callers)
}

const gone = 1_000_000

/** How much the heap grows while a million callers come once, at most 100 at a time. */
const forgotten = Effect.gen(function*() {
  const limited = Throttle.concurrency({ limit: 10, order: "fair" })
  const pass = (from: number, to: number) =>
    Effect.gen(function*() {
      for (let i = from; i < to; i += 100) {
        const fibers: Array<Fiber.Fiber<void>> = []
        for (let j = i; j < i + 100; j++) {
          fibers.push(yield* Effect.forkChild(Throttle.withCaller({ key: `caller ${j}` })(limited(Effect.yieldNow))))
        }
        yield* Fiber.awaitAll(fibers)
      }
    })
  const many = quick ? gone / 10 : gone
  yield* pass(0, 10_000)
  const before = collectGarbage()
  yield* pass(10_000, 10_000 + many)
  return { bytes: (collectGarbage() - before) / many }
})

const untraced = <A>(effect: Effect.Effect<A>) => Effect.provideService(effect, References.TracerEnabled, false)

export const own = (name: string, size: string): Run => {
  if (name === "forgotten") return () => Effect.runPromise(untraced(forgotten))
  const callers = Number(size)
  const make = wraps[name]
  if (make === undefined) return async () => ({ us: await timed(() => queued(name, callers)) / total / 1e3 })
  return async () => ({
    us: await timed(() => Effect.runPromise(untraced(program(make(), callers)))) / total / 1e3
  })
}

export const section = async (): Promise<Section> => {
  const sizes = [1, 100, 1_000, 10_000]
  const names = [...Object.keys(wraps), "promise", "p-queue"]
  const seen = await rounds(
    { warmup: 2, count: quick ? 3 : 11 },
    Object.fromEntries(names.flatMap((name) => sizes.map((n) => [`${name} ${n}`, ["orders", name, n]])))
  )
  const { left } = await rounds({ warmup: 0, count: 1 }, { left: ["orders", "forgotten", 0] })
  const added = (name: string, n: number): number =>
    seen[`${name} ${n}`]!.us! - seen[`${name === "p-queue" ? "promise" : "bare"} ${n}`]!.us!
  const figures = (name: string) => sizes.map((n) => us(added(name, n)))
  const beside = (name: string) => sizes.map((n) => ratio(added(name, n) / added("arrival", n)))
  const growth = added("fair", 10_000) / added("fair", 100)
  return {
    title: "Orders of the queue, `concurrency({ limit: 1 })`",
    about:
      "So many callers, each making one call after the other, so as many calls wait; minus the same fibers without a " +
      "throttle. A call of an order other than `arrival` also looks its caller up. p-queue has priorities, Effect's " +
      "`PartitionedSemaphore` takes turns between keys.",
    columns: sizes.map((n) => `µs, ${count(n)}`),
    rows: [
      { what: "`order: \"arrival\"`", figures: figures("arrival") },
      { what: "`order: \"priority\"`", figures: figures("priority") },
      { what: "`order: \"fair\"`", figures: figures("fair") },
      { what: "`fair` to `arrival`", figures: beside("fair") },
      atMost("`fair`, 10,000 callers to 100", ["", "", "", ratio(growth)], growth, 4),
      { what: "Effect's `PartitionedSemaphore`", figures: figures("partitioned") },
      { what: "p-queue with priorities", figures: figures("p-queue") },
      atMost(
        `bytes left by each of ${count(quick ? gone / 10 : gone)} callers that came once`,
        [ns(left.bytes!), "", "", ""],
        left.bytes!,
        1
      )
    ]
  }
}
