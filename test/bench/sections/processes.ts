/** Several processes that share a throttle through Redis: how much they ask, how fair it is, and what is left of one. */
import { NodeRedis } from "@effect/platform-node"
import { Effect, Fiber, Layer, References } from "effect"
import { Throttle } from "effect-throttle"
import { RedisStore, RedisThrottle } from "effect-throttle/redis"
import { Redis } from "effect/persistence"
import { type ChildProcess, fork } from "node:child_process"
import { fileURLToPath } from "node:url"
import { median, quick, type Run } from "../harness.ts"
import { isInstalled, missing, withServer } from "../redis-server.ts"
import { atMost, percent, ratio, type Section } from "../report.ts"

const policies = {
  rate: Throttle.rate({ limit: 100, burst: 19 }),
  one: Throttle.concurrency({ limit: 1 })
}

const ttl = 1_500

/** Milliseconds, the same for all processes of a machine. */
const now = () => Number(process.hrtime.bigint()) / 1e6

/** Makes calls until it is killed or stopped; prints when each call started and ended. */
export const own = (policy: string, fibers: string, runs: string, url: string): Run => {
  const starts: Array<number> = []
  const ends: Array<number> = []
  const work = Effect.gen(function*() {
    starts.push(now())
    if (runs === "0") return
    yield* Effect.sleep(Number(runs))
    ends.push(now())
  })
  const program = Effect.gen(function*() {
    const throttle = yield* Throttle.Throttle
    yield* Effect.sync(() => void process.send!("ready"))
    yield* Effect.callback<void>((resume) => void process.once("message", () => resume(Effect.void)))
    const stop = Effect.callback<void>((resume) => void process.once("message", () => resume(Effect.void)))
    yield* Effect.raceFirst(
      Effect.forEach(Array.from({ length: Number(fibers) }), () => Effect.forever(throttle.withPermit(work)), {
        concurrency: "unbounded"
      }),
      stop
    )
  })
  const layer = RedisThrottle.layer(policies[policy as keyof typeof policies], {
    key: policy,
    timeout: "10 seconds",
    leaseTtl: ttl
  }).pipe(Layer.provide(NodeRedis.layer({ url })))
  const state = { isRunning: false }
  return async () => {
    // The words that let it go and stop it come by the same way as the one that asks for its figures.
    if (state.isRunning) return new Promise(() => {})
    state.isRunning = true
    await Effect.runPromise(program.pipe(Effect.provide(layer), Effect.provideService(References.TracerEnabled, false)))
    return { starts, ends } as never
  }
}

interface Seen {
  readonly starts: ReadonlyArray<number>
  readonly ends: ReadonlyArray<number>
}

interface Worker {
  readonly child: ChildProcess
  readonly tell: () => void
  readonly seen: Promise<Seen>
}

const entry = fileURLToPath(new URL("case.js", import.meta.url.replace("sections/", "")))

const start = (policy: string, fibers: number, runs: number, url: string): Promise<Worker> =>
  new Promise((resolve) => {
    const child = fork(entry, ["processes", policy, String(fibers), String(runs), url])
    const seen = new Promise<Seen>((done) => {
      child.on("message", (message) => {
        if (message === "ready") resolve({ child, tell: () => void child.send("go"), seen })
        else done(message as Seen)
      })
    })
    child.send("run")
  })

const stopped = async (workers: ReadonlyArray<Worker>): Promise<ReadonlyArray<Seen>> => {
  for (const { tell } of workers) tell()
  const seen = await Promise.all(workers.map(({ seen }) => seen))
  for (const { child } of workers) child.kill()
  return seen
}

const pause = (millis: number) => new Promise((resolve) => setTimeout(resolve, millis))

const evalshas = (url: string): Promise<number> =>
  Effect.runPromise(
    Effect.flatMap(Redis.Redis, (redis) => redis.send<string>("INFO", "commandstats")).pipe(
      Effect.map((info) => Number(/cmdstat_evalsha:calls=(\d+)/.exec(info)?.[1] ?? 0)),
      Effect.provide(NodeRedis.layer({ url }))
    )
  )

/** Four processes of 50 fibers each, for so long. */
const saturated = async (url: string, millis: number) => {
  const all = await Promise.all([1, 2, 3, 4].map(() => start("rate", 50, 0, url)))
  const before = await evalshas(url)
  const began = now()
  for (const { tell } of all) tell()
  await pause(millis)
  const ended = now()
  const calls = await evalshas(url) - before
  const each = (await stopped(all)).map(({ starts }) => starts.filter((at) => at <= ended))
  const starts = each.flat().toSorted((a, b) => a - b)
  // How many more than the pace allows started in any span.
  let burst = 0
  for (let i = 0; i < starts.length; i++) {
    for (let j = i; j < starts.length; j++) burst = Math.max(burst, j - i + 1 - (starts[j]! - starts[i]!) / 10)
  }
  const counts = each.map(({ length }) => length)
  const most = Math.max(...counts)
  return {
    calls: calls / starts.length,
    burst,
    // One of them takes the whole burst at the beginning.
    spread: (most - 20 - Math.min(...counts)) / most,
    reached: starts.length / (20 + (ended - began) / 10)
  }
}

/** How long one permit takes from one process to the next. */
const handed = async (url: string, millis: number) => {
  const all = await Promise.all([1, 2, 3, 4].map(() => start("one", 12, 3, url)))
  for (const { tell } of all) tell()
  await pause(millis)
  const seen = await stopped(all)
  const spans = seen.flatMap(({ ends, starts }) => ends.map((end, i) => ({ at: starts[i]!, end })))
    .toSorted((a, b) => a.at - b.at)
  const waits = spans.slice(1).map(({ at }, i) => at - spans[i]!.end).toSorted((a, b) => a - b)
  return { p50: median(waits), p95: waits[Math.floor(waits.length * 0.95)]! }
}

/** How long after a holder is killed another process has its permit. */
const killed = async (url: string) => {
  const holder = await start("one", 1, 60_000, url)
  holder.tell()
  await pause(300)
  const next = await start("one", 1, 1, url)
  next.tell()
  await pause(200)
  holder.child.kill("SIGKILL")
  const at = now()
  await pause(ttl + 500)
  const [seen] = await stopped([next])
  return seen!.starts[0]! - at
}

/** 60 waiters at 10 a second are interrupted: how long the next one waits. */
const interrupted = (url: string) =>
  Effect.runPromise(
    Effect.gen(function*() {
      const throttle = yield* RedisThrottle.make(Throttle.rate({ limit: 10 }), { key: "60", timeout: "10 seconds" })
      yield* throttle.wait()
      const crowd = yield* Effect.forEach(Array.from({ length: 60 }), () => Effect.forkChild(throttle.wait()))
      yield* Effect.sleep("50 millis")
      yield* Fiber.interruptAll(crowd)
      const asked = now()
      yield* throttle.wait()
      return now() - asked
    }).pipe(Effect.scoped, Effect.provide(RedisStore.layer.pipe(Layer.provide(NodeRedis.layer({ url })))))
  )

const ms = (millis: number): string => millis.toFixed(1)

export const section = async (): Promise<Section> => {
  const title = "Several processes, one limit in Redis"
  if (!isInstalled()) return { title, about: missing, columns: [], rows: [] }
  return withServer(async (url) => {
    const four = await saturated(url, quick ? 2_000 : 5_000)
    const hand = await handed(url, quick ? 1_000 : 4_000)
    const free = await killed(url)
    const next = await interrupted(url)
    return {
      title,
      about:
        "Four processes of 50 fibers each on `rate({ limit: 100, burst: 19 })`; one permit among four processes of 12 " +
        `fibers; a process that is killed while it holds a lease of ${ttl} ms; 60 interrupted waiters at 10 a second.`,
      columns: ["figure"],
      rows: [
        atMost("requests to Redis a start", [ratio(four.calls)], four.calls, 1.1),
        atMost("worst burst, of 20", [ratio(four.burst)], four.burst, 21),
        atMost("spread between processes", [percent(four.spread)], four.spread, 0.05),
        { what: "started, of what the policy allows", figures: [percent(four.reached)] },
        { what: "a permit from one process to the next, median", figures: [`${ms(hand.p50)} ms`] },
        atMost("the same, 95 of 100", [`${ms(hand.p95)} ms`], hand.p95, 5, " ms"),
        atMost("a killed holder's permit is free", [`${ms(free)} ms`], free, ttl + 50, " ms"),
        atMost("the next call after 60 interrupted ones waits", [`${ms(next)} ms`], next, 200, " ms")
      ]
    }
  })
}
