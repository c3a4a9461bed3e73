/** What a saturated throttle takes of a processor. */
import { Effect, References } from "effect"
import { Throttle } from "effect-throttle"
import { RateLimiter } from "effect/persistence"
import { type Figures, quick, rounds, type Run } from "../harness.ts"
import { percent, ratio, type Section } from "../report.ts"

const limit = 10_000
const n = limit * (quick ? 0.5 : 2)

const all = (start: Effect.Effect<void, unknown>) =>
  Effect.forEach(Array.from({ length: n }), () => start, { concurrency: "unbounded", discard: true })

const programs: Record<string, Effect.Effect<void, unknown>> = {
  throttle: all(Effect.void.pipe(Throttle.rate({ limit }))),
  rateLimiter: Effect.flatMap(
    RateLimiter.makeWithRateLimiter,
    (withLimiter) =>
      all(
        withLimiter({ key: "a", limit: 10, window: "1 millis", algorithm: "token-bucket", onExceeded: "delay" })(
          Effect.void
        )
      )
  ).pipe(Effect.provide(RateLimiter.layer), Effect.provide(RateLimiter.layerStoreMemory))
}

export const own = (name: string): Run => async () => {
  const cpu = process.cpuUsage()
  const start = process.hrtime.bigint()
  await Effect.runPromise(Effect.provideService(programs[name]!, References.TracerEnabled, false))
  const { system, user } = process.cpuUsage(cpu)
  const micros = Number(process.hrtime.bigint() - start) / 1e3
  return { share: (user + system) / micros, rate: n / micros * 1e6 / limit }
}

export const section = async (): Promise<Section> => {
  const seen = await rounds({ warmup: 0, count: quick ? 1 : 3 }, {
    throttle: ["cpu", "throttle"],
    rateLimiter: ["cpu", "rateLimiter"]
  })
  const row = (what: string, { rate, share }: Figures) => ({
    what,
    figures: [percent(share!), ratio(rate!), percent(share! / rate!)]
  })
  return {
    title: "Processor, 10,000 per second",
    about:
      `${n} callers at once, from a cold start until the last has started; user and system time over elapsed time.`,
    columns: ["of one core", "achieved / asked", "of one core at the full rate"],
    rows: [row("`rate`", seen.throttle), row("Effect's RateLimiter (memory)", seen.rateLimiter)]
  }
}
