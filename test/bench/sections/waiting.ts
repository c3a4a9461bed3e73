/** What a waiting call costs, and whether that grows with the queue. */
import { Sema } from "async-sema"
import Bottleneck from "bottleneck"
import { Effect, Fiber, References, Semaphore } from "effect"
import { Throttle } from "effect-throttle"
import pLimit from "p-limit"
import PQueue from "p-queue"
import { type Figures, quick, rounds, type Run, timed, usualStep } from "../harness.ts"
import { atLeast, atMost, count, ratio, type Row, type Section, us } from "../report.ts"

type Wrap = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

const wraps: Record<string, Wrap> = {
  bare: (self) => self,
  throttle: Throttle.concurrency({ limit: 10 }),
  semaphore: (self) => Semaphore.makeUnsafe(10).withPermit(self),
  span: (self) => Effect.useSpan("throttle.wait", () => self)
}

/** Forks n fibers that each give way once, and waits for them. */
const forked = (wrap: Wrap, n: number) => {
  const one = wrap(Effect.yieldNow)
  return Effect.gen(function*() {
    const fibers: Array<Fiber.Fiber<void>> = []
    for (let i = 0; i < n; i++) fibers.push(yield* Effect.forkChild(one))
    yield* Fiber.joinAll(fibers)
  })
}

const task = (): Promise<void> => Promise.resolve()

const promises: Record<string, () => (task: () => Promise<void>) => Promise<unknown>> = {
  promise: () => (task) => task(),
  "p-limit": () => pLimit(10),
  "p-queue": () => {
    const queue = new PQueue({ concurrency: 10 })
    return (task) => queue.add(task)
  },
  "async-sema": () => {
    const sema = new Sema(10)
    return async (task) => {
      await sema.acquire()
      try {
        await task()
      } finally {
        sema.release()
      }
    }
  },
  bottleneck: () => {
    const limiter = new Bottleneck({ maxConcurrent: 10 })
    return (task) => limiter.schedule(task)
  }
}

const together = (name: string, n: number) => async (): Promise<void> => {
  const limit = promises[name]!()
  await Promise.all(Array.from({ length: n }, () => limit(task)))
}

export const own = (name: string, size: string, tracing: string): Run => {
  const n = Number(size)
  const wrap = wraps[name]
  if (wrap === undefined) return async () => ({ us: await timed(together(name, n)) / n / 1e3 })
  const program = forked(wrap, n)
  const effect = tracing === "observed"
    ? program
    : Effect.provideService(program, References.TracerEnabled, false)
  return async () => ({ us: await timed(() => Effect.runPromise(effect)) / n / 1e3 })
}

export const section = async (): Promise<Section> => {
  const most = quick ? 20_000 : 100_000
  const sizes = [1_000, 10_000, most]
  const key = (name: string, n: number, tracing = "unobserved") => `${name} ${n} ${tracing}`
  const run = (
    options: { readonly warmup: number; readonly count: number },
    cases: ReadonlyArray<readonly [name: string, n: number, tracing?: string]>
  ) =>
    rounds(
      options,
      Object.fromEntries(
        cases.map(([name, n, tracing = "unobserved"]) => [
          key(name, n, tracing),
          name === "suspend" ? ["idle", name] : ["waiting", name, n, tracing]
        ])
      )
    )
  const effects = (n: number) =>
    ["bare", "throttle"].flatMap((name) => ["unobserved", "observed"].map((tracing) => [name, n, tracing] as const))
  const libraries = (n: number) =>
    quick ? [] : ["promise", "p-limit", "p-queue", "async-sema"].map((name) => [name, n] as const)
  const few = await run({ warmup: quick ? 10 : 20, count: quick ? 11 : 101 }, [
    ["suspend", 1],
    ...effects(1_000),
    ...(quick ? [] : [["semaphore", 1_000] as const]),
    ...libraries(1_000)
  ])
  const speed = usualStep / few[key("suspend", 1)]!.ns!
  const seen: Record<string, Figures> = {
    ...few,
    ...await run({ warmup: 3, count: quick ? 3 : 15 }, [
      ...effects(10_000),
      ...(quick ? [] : [["span", 10_000, "observed"] as const]),
      ...libraries(10_000)
    ]),
    ...await run({ warmup: 1, count: quick ? 1 : 3 }, [...effects(most), ...libraries(most)]),
    // These take seconds, and minutes for the next size.
    ...await run({ warmup: 0, count: 1 }, [["semaphore", 10_000], ...(quick ? [] : [["bottleneck", 1_000] as const])])
  }
  const added = (name: string, n: number, tracing = "unobserved"): number | undefined => {
    const base = seen[key(name in wraps ? "bare" : "promise", n, tracing)]
    const all = seen[key(name, n, tracing)]
    return base === undefined || all === undefined ? undefined : all.us! - base.us!
  }
  const figures = (f: (n: number) => number | undefined): ReadonlyArray<string> =>
    sizes.map((n) => {
      const figure = f(n)
      return figure === undefined ? "" : us(figure)
    })
  /** A ratio in the column of one size. */
  const under = (size: number, x: number) => sizes.map((n) => n === size ? ratio(x) : "")
  const ours = (tracing: string) => (n: number) => added("throttle", n, tracing)
  const worst = (tracing: string) => Math.max(...sizes.map((n) => ours(tracing)(n)!))
  const barred = (tracing: string, bar: number): ReadonlyArray<Row> => [
    atMost(`\`concurrency\`, ${tracing}`, figures(ours(tracing)), worst(tracing), bar, " µs"),
    atMost(
      `the same where suspend takes ${usualStep} ns`,
      figures((n) => ours(tracing)(n)! * speed),
      worst(tracing) * speed,
      bar,
      " µs"
    )
  ]
  const flat = (tracing: string) => ours(tracing)(most)! / ours(tracing)(10_000)!
  const faster = added("semaphore", 10_000)! / added("throttle", 10_000)!
  const other = (name: string): Row => ({ what: name, figures: figures((n) => added(name, n)) })
  return {
    title: "Waiting for `concurrency({ limit: 10 })`",
    about: "So many fibers forked at once, each giving way once, minus the same fibers without a throttle; promises " +
      "likewise, through `Promise.all`. Unobserved is without a tracer; observed is with Effect's own tracer, a span " +
      "for each wait. Metrics and statistics are always on. A process for each.",
    columns: sizes.map((n) => `µs, ${count(n)}`),
    rows: [
      ...barred("unobserved", 2.5),
      ...barred("observed", 5),
      ...["unobserved", "observed"].map((tracing) =>
        atMost(`${tracing}, ${count(most)} to 10,000`, under(most, flat(tracing)), flat(tracing), 1.4)
      ),
      { ...other("semaphore"), what: "Effect's `Semaphore`, unobserved" },
      atLeast("times as fast as Effect's `Semaphore`", under(10_000, faster), faster, 30),
      ...(quick ? [] : [
        { what: "an empty span around each, observed", figures: figures((n) => added("span", n, "observed")) },
        ...["p-limit", "p-queue", "async-sema", "bottleneck"].map(other)
      ])
    ]
  }
}
