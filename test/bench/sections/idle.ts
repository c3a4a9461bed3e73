/** What a call costs while no call waits. */
import { Clock, Effect, Semaphore } from "effect"
import { Throttle } from "effect-throttle"
import { RateLimiter } from "effect/persistence"
import { type Figures, middle, quick, rounds, type Run, timed, usualStep } from "../harness.ts"
import { atLeast, atMost, ns, ratio, type Row, type Section } from "../report.ts"

const self = Effect.void

const often = 1_000_000_000
const rate = Throttle.rate({ limit: often, burst: often })
/** A value of its own: a policy whose Layer was built looks for it at each inline use. */
const provided = Throttle.rate({ limit: often, burst: often })
const tokenBucket = Throttle.tokenBucket({ capacity: often, refill: often })
const window = Throttle.window({ limit: often, per: 1 })

const semaphore = Semaphore.makeUnsafe(10)
const held = { count: 0 }

const effects = {
  /** Nothing but one step of the runtime. */
  suspend: Effect.suspend(() => self),
  /** The least that deciding by time can cost. */
  clock: Effect.withFiber((fiber) =>
    Number(fiber.getRef(Clock.Clock).monotonicTimeNanosUnsafe()) > 0 ? self : Effect.never
  ),
  semaphore: semaphore.withPermit(self),
  /** The least that concurrency can cost: a Semaphore, and a count of its own with the hook that counts back. */
  counted: Effect.uninterruptibleMask((restore) => {
    held.count++
    return Effect.onExitPrimitive(
      semaphore.withPermit(restore(self)),
      () => {
        held.count--
        return undefined
      },
      true
    )
  }),
  rateLimiter: Effect.flatMap(
    RateLimiter.RateLimiter,
    (limiter) =>
      Effect.flatMap(
        limiter.consume({ key: "a", limit: often, window: "1 second", algorithm: "token-bucket", onExceeded: "delay" }),
        () => self
      )
  ),
  none: Throttle.none(self),
  rate: rate(self),
  service: Throttle.withPermit(self),
  tokenBucket: tokenBucket(self),
  sliding: window(self),
  fixed: Throttle.window({ limit: often, per: "1 second", kind: "fixed" })(self),
  spacing: Throttle.spacing({ interval: "1 nanos" })(self),
  concurrency: Throttle.concurrency({ limit: 10 })(self),
  all: Throttle.all([rate, tokenBucket, window])(self)
}

type Case = keyof typeof effects

/** Short runs and many of them: what else the machine does comes in bursts. */
const calls = quick ? 20_000 : 50_000
/** The compiler is done after some 300,000 calls. */
const warmup = 400_000 / calls
const count = quick ? 11 : 51

/** A loop of calls, with what they ask for. */
const program = (name: Case): Effect.Effect<void> => {
  const effect = effects[name] as Effect.Effect<void, never, RateLimiter.RateLimiter | Throttle.Throttle>
  const loop = Effect.gen(function*() {
    for (let i = 0; i < calls; i++) yield* effect
  })
  const limiter = Effect.provide(RateLimiter.layer)(loop).pipe(Effect.provide(RateLimiter.layerStoreMemory))
  return name === "rateLimiter"
    ? limiter as Effect.Effect<void>
    : name === "service"
    ? Effect.provide(loop, provided) as Effect.Effect<void>
    : loop as Effect.Effect<void>
}

export const own = (name: string): Run => {
  const loop = program(name as Case)
  const run = () => Effect.runPromise(loop)
  const state = { cold: true }
  return async () => {
    for (let i = 0; state.cold && i < warmup; i++) await run()
    state.cold = false
    return { ns: await timed(run) / calls }
  }
}

const words: Readonly<Record<Case, string>> = {
  suspend: "`Effect.suspend`",
  clock: "`Effect.withFiber` and one read of the clock",
  semaphore: "`Semaphore.withPermit`",
  counted: "`Semaphore.withPermit`, a count and an exit hook",
  rateLimiter: "Effect's RateLimiter (memory)",
  none: "`none`",
  rate: "`rate`",
  service: "`rate` through the service",
  tokenBucket: "`tokenBucket`",
  sliding: "`window`",
  fixed: "`window`, fixed",
  spacing: "`spacing`",
  concurrency: "`concurrency`",
  all: "`all([rate, tokenBucket, window])`"
}

const names = Object.keys(effects) as ReadonlyArray<Case>

export const section = async (): Promise<Section> => {
  const seen = await rounds({ warmup: 1, count }, Object.fromEntries(names.map((name) => [name, ["idle", name]])))
  const of = (name: Case) => seen[name]!.ns!
  const figures = (name: Case) => [
    ns(of(name)),
    ratio(of(name) / of("suspend")),
    ratio(of(name) / of("clock")),
    ratio(of(name) / of("semaphore"))
  ]
  const plain = (name: Case): Row => ({ what: words[name], figures: figures(name) })
  const timing = (name: Case): Row => atMost(words[name], figures(name), of(name) / of("clock"), 1.4, " × clock")
  const more = of("service") - of("rate")
  const scaled = more * usualStep / of("suspend")
  return {
    title: "Nobody waiting, a process for each case",
    about:
      "One call in a loop of `yield*`, the loop's own cost included. Nobody ever waits; metrics and statistics are on.",
    columns: ["ns a call", "× suspend", "× clock", "× Semaphore"],
    rows: [
      plain("suspend"),
      plain("clock"),
      plain("none"),
      timing("rate"),
      timing("tokenBucket"),
      timing("sliding"),
      timing("fixed"),
      timing("spacing"),
      atMost(words.all, figures("all"), of("all") / of("suspend"), 3, " × suspend"),
      plain("semaphore"),
      plain("counted"),
      atMost(words.concurrency, figures("concurrency"), of("concurrency") / of("semaphore"), 1.4, " × Semaphore"),
      plain("service"),
      atMost("through the service, more than inline", [ns(more)], more, 60, " ns"),
      atMost(`the same where suspend takes ${usualStep} ns`, [ns(scaled)], scaled, 60, " ns"),
      plain("rateLimiter"),
      atLeast(
        "`rate`, times as fast as RateLimiter",
        ["", "", "", ratio(of("rateLimiter") / of("rate"))],
        of("rateLimiter") / of("rate"),
        2,
        " ×"
      )
    ]
  }
}

export const mixedSection = async (): Promise<Section> => {
  const cases = names.map((name) => ({ name, run: own(name), seen: [] as Array<Figures> }))
  for (const { run } of cases) await run()
  for (let round = 0; round < count / 4; round++) {
    for (const { run, seen } of cases) seen.push(await run())
  }
  const seen = new Map(cases.map(({ name, seen }) => [name, middle(seen).ns!]))
  const of = (name: Case) => seen.get(name)!
  return {
    title: "Nobody waiting, all in one process",
    about:
      "The same cases in turn within one process: code that has seen every policy is slower than code that has seen one.",
    columns: ["ns a call", "× suspend", "× clock", "× Semaphore"],
    rows: names.map((name) => ({
      what: words[name],
      figures: [
        ns(of(name)),
        ratio(of(name) / of("suspend")),
        ratio(of(name) / of("clock")),
        ratio(of(name) / of("semaphore"))
      ]
    }))
  }
}
