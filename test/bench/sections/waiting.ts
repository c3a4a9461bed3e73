/** What a call costs that has to wait, and whether that grows with the line. */
import { Sema } from "async-sema"
import Bottleneck from "bottleneck"
import { Effect, Fiber, References, Semaphore } from "effect"
import { Throttle } from "effect-throttle"
import pLimit from "p-limit"
import PQueue from "p-queue"
import { type Figures, measured, ownProcess, quick, rounds } from "../harness.ts"
import { atLeast, atMost, count, ratio, type Row, type Section, us } from "../report.ts"
import { usualStep } from "./idle.ts"

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

const runsFor = (name: string, n: number): { readonly warmup: number; readonly runs: number } =>
  (name === "semaphore" && n > 1_000) || name === "bottleneck"
    ? { warmup: 0, runs: 1 }
    : n > 10_000
    ? { warmup: 1, runs: quick ? 1 : 3 }
    : { warmup: Math.ceil(20_000 / n), runs: Math.ceil((quick ? 20_000 : 200_000) / n) }

export const own = async (name: string, size: string, tracing: string): Promise<Figures> => {
  const n = Number(size)
  const wrap = wraps[name]
  if (wrap === undefined) return { us: await measured(runsFor(name, n), together(name, n)) / n / 1e3 }
  const program = forked(wrap, n)
  const effect = tracing === "observed"
    ? program
    : Effect.provideService(program, References.TracerEnabled, false)
  return { us: await measured(runsFor(name, n), () => Effect.runPromise(effect)) / n / 1e3 }
}

export const section = async (): Promise<Section> => {
  const most = quick ? 50_000 : 100_000
  const sizes = [1_000, 10_000, most]
  const key = (name: string, n: number, tracing = "unobserved") => `${name} ${n} ${tracing}`
  const cases: Array<readonly [name: string, n: number, tracing: string]> = [
    ...sizes.flatMap((n) =>
      ["unobserved", "observed"].flatMap((tracing) => ["bare", "throttle"].map((name) => [name, n, tracing] as const))
    ),
    ["span", 10_000, "observed"],
    ["semaphore", 1_000, "unobserved"],
    ["semaphore", 10_000, "unobserved"],
    ...["promise", "p-limit", "p-queue", "async-sema"].flatMap((name) =>
      [10_000, 100_000].map((n) => [name, n, "unobserved"] as const)
    ),
    ["promise", 1_000, "unobserved"],
    // 1,000 calls take it seconds, 10,000 minutes.
    ["bottleneck", 1_000, "unobserved"]
  ]
  const chosen = quick
    ? cases.filter(([name, n]) => name === "throttle" || name === "bare" || (name === "semaphore" && n === 10_000))
    : cases
  const idle = await rounds(1, { suspend: () => ownProcess("idle", "suspend") })
  const speed = usualStep / idle.suspend.ns!
  const run = (count: number, some: typeof chosen) =>
    rounds(
      count,
      Object.fromEntries(
        some.map(([name, n, tracing]) => [key(name, n, tracing), () => ownProcess("waiting", name, n, tracing)])
      )
    )
  const isOurs = ([name]: (typeof chosen)[number]) => name === "throttle" || name === "bare"
  const seen = {
    ...await run(quick ? 1 : 2, chosen.filter(isOurs)),
    ...await run(1, chosen.filter((one) => !isOurs(one)))
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
      atMost(`unobserved, ${count(most)} to 10,000`, ["", "", ratio(flat("unobserved"))], flat("unobserved"), 1.4),
      atMost(`observed, ${count(most)} to 10,000`, ["", "", ratio(flat("observed"))], flat("observed"), 1.4),
      { ...other("semaphore"), what: "Effect's `Semaphore`, unobserved" },
      atLeast("times as fast as Effect's `Semaphore`", ["", ratio(faster)], faster, 30),
      ...(quick ? [] : [
        { what: "an empty span around each, observed", figures: figures((n) => added("span", n, "observed")) },
        ...["p-limit", "p-queue", "async-sema", "bottleneck"].map(other)
      ])
    ]
  }
}
