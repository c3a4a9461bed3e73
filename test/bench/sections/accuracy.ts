/** Whether the rate that is asked for is the rate that comes, and never more. */
import Bottleneck from "bottleneck"
import { Effect, Fiber, References } from "effect"
import { Throttle } from "effect-throttle"
import { RateLimiter as EffectRateLimiter } from "effect/persistence"
import { RateLimiter } from "limiter"
import pThrottle from "p-throttle"
import { type Figures, insist, quick, rounds, type Run } from "../harness.ts"
import { atLeast, atMost, count, type Row, type Section } from "../report.ts"

const seconds = quick ? 0.5 : 2
const settling = 100e6
const catchUp = 10e6
// A start is recorded up to a millisecond after it was decided on.
const jitter = 1e6

/** The times at which calls start. */
const recorder = (n: number) => {
  const starts = new Float64Array(n)
  let next = 0
  return {
    record: () => {
      starts[next++] = Number(process.hrtime.bigint())
    },
    starts
  }
}

/**
 * Permits started in any span t are at most capacity + (t + catch-up) / T: a bucket of that size that drains by one
 * every T never overflows.
 */
const insistOnBound = (starts: Float64Array, interval: number): void => {
  let level = 0
  let last = starts[0]!
  for (const at of starts) {
    level = Math.max(0, level - (at - last) / interval) + 1
    last = at
    insist(level <= 1 + (catchUp + jitter) / interval, `no span holds more than it may (${level} in the bucket)`)
  }
}

/** The clock starts when the last caller has come; the first have started by then. */
const ours = async (limit: number, traced: boolean): Promise<Figures> => {
  const n = Math.max(100, Math.round(limit * (seconds + settling / 1e9)))
  const { record, starts } = recorder(n)
  const start = Effect.sync(record).pipe(Throttle.rate({ limit }))
  const state = { queued: 0 }
  const program = Effect.gen(function*() {
    const fibers: Array<Fiber.Fiber<void>> = []
    for (let i = 0; i < n; i++) fibers.push(yield* Effect.forkChild(start, { startImmediately: true }))
    state.queued = Number(process.hrtime.bigint())
    yield* Fiber.joinAll(fibers)
  })
  await Effect.runPromise(traced ? program : Effect.provideService(program, References.TracerEnabled, false))
  insistOnBound(starts, 1e9 / limit)
  // The time lost while the calls entered the queue is caught up first: those starts do not count.
  const from = starts.findIndex((at) => at > state.queued + settling)
  insist(from >= 0 && starts[n - 1]! - starts[from]! > seconds * 0.2e9, "enough is left to count when all calls wait")
  return { achieved: speed(starts.subarray(from)) / limit }
}

const inLine = quick ? 50_000 : 200_000

const timers = (): number => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length

/** The timers of the process while so many wait, none of whom starts today. */
const waitingForOneTimer = Effect.gen(function*() {
  const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, per: "1 day" }))
  yield* throttle.wait()
  const before = timers()
  for (let i = 0; i < inLine; i++) yield* Effect.forkChild(throttle.wait(), { startImmediately: true })
  insist((yield* throttle.statistics).waiting === inLine, `${inLine} wait`)
  return { timers: timers() - before }
})

/** Starts per second. */
const speed = (starts: Float64Array): number => (starts.length - 1) / ((starts.at(-1)! - starts[0]!) / 1e9)

const others: Record<string, (limit: number, record: () => void) => (n: number) => Promise<unknown>> = {
  "p-throttle": (limit, record) => {
    const throttled = pThrottle({ limit: limit / 1_000, interval: 1 })(record)
    return (n) => Promise.all(Array.from({ length: n }, () => throttled()))
  },
  limiter: (limit, record) => {
    const limiter = new RateLimiter({ tokensPerInterval: limit / 1_000, interval: 1 })
    return (n) => Promise.all(Array.from({ length: n }, () => limiter.removeTokens(1).then(record)))
  },
  bottleneck: (limit, record) => {
    const limiter = new Bottleneck({ minTime: 1_000 / limit })
    return (n) => Promise.all(Array.from({ length: n }, () => limiter.schedule(async () => record())))
  },
  RateLimiter: (limit, record) => (n) =>
    Effect.gen(function*() {
      const withLimiter = yield* EffectRateLimiter.makeWithRateLimiter
      const start = withLimiter({
        key: "a",
        limit: limit / 1_000,
        window: "1 millis",
        algorithm: "token-bucket",
        onExceeded: "delay"
      })(Effect.sync(record))
      yield* Effect.forEach(Array.from({ length: n }), () => start, { concurrency: "unbounded", discard: true })
    }).pipe(
      Effect.provide(EffectRateLimiter.layer),
      Effect.provide(EffectRateLimiter.layerStoreMemory),
      Effect.runPromise
    )
}

export const own = (name: string, asked: string, tracing: string): Run => async () => {
  const limit = Number(asked)
  if (name === "line") return Effect.runPromise(Effect.scoped(waitingForOneTimer))
  if (name === "throttle") return ours(limit, tracing === "traced")
  // Bottleneck starts some hundred a second, whatever it is asked for.
  const n = Math.min(Math.round(limit * seconds / 2), name === "bottleneck" ? 500 : Infinity)
  const { record, starts } = recorder(n)
  await others[name]!(limit, record)(n)
  return { achieved: speed(starts) / limit }
}

export const section = async (): Promise<Section> => {
  const bars = { 100: 0.995, 1_000: 0.99, 10_000: 0.99, 100_000: 0.95 }
  const asked = (quick ? [100_000] : [100, 1_000, 10_000, 100_000]) as ReadonlyArray<keyof typeof bars>
  const cases: ReadonlyArray<readonly [name: string, limit: number, tracing: string]> = [
    ...asked.flatMap((limit) => ["untraced", "traced"].map((tracing) => ["throttle", limit, tracing] as const)),
    ["line", inLine, "untraced"],
    ...Object.keys(quick ? {} : others).flatMap((name) =>
      [1_000, 10_000].map((limit) => [name, limit, "untraced"] as const)
    )
  ]
  const key = (name: string, limit: number, tracing: string) => `${name} ${limit} ${tracing}`
  const seen = await rounds(
    { warmup: 0, count: 1 },
    Object.fromEntries(cases.map((one) => [key(...one), ["accuracy", ...one]]))
  )
  const achieved = (name: string, limit: number, tracing = "untraced") => seen[key(name, limit, tracing)]!.achieved!
  const figure = (x: number) => x.toFixed(4)
  const ours = asked.flatMap((limit): ReadonlyArray<Row> =>
    ["untraced", "traced"].map((tracing) => {
      const share = achieved("throttle", limit, tracing)
      return atLeast(`${count(limit)} per second, ${tracing}`, [figure(share)], share, bars[limit])
    })
  )
  const { timers } = seen[key("line", inLine, "untraced")]!
  insist(timers! > 0, "a timer is set")
  return {
    title: "Accuracy, and timers",
    about:
      `Starts per second over what was asked for, saturated, counted from 0.1 s after the last caller has come into line. No ` +
      "span holds more starts than capacity + (span + catch-up of 10 ms) / interval, with 1 ms more for recording them; " +
      "otherwise the bench fails. Timers are those of the process while so many wait for a rate of 1 a day. The others " +
      "are asked for 1 and 10 each millisecond.",
    columns: ["achieved / asked"],
    rows: [
      ...ours,
      atMost(`timers, ${count(inLine)} in line`, [String(timers)], timers!, 1),
      ...Object.keys(quick ? {} : others).flatMap((name) =>
        [1_000, 10_000].map((limit): Row => ({
          what: `${name}, ${count(limit)} per second`,
          figures: [figure(achieved(name, limit))]
        }))
      )
    ]
  }
}
