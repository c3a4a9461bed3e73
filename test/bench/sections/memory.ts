/** What stays in memory: for a call that waits, for a throttle that is idle, and after millions of calls. */
import { Effect, References, Semaphore } from "effect"
import { Throttle } from "effect-throttle"
import { collectGarbage, quick, rounds, type Run } from "../harness.ts"
import { atMost, count, ns, ratio, type Section } from "../report.ts"

const waiters = 20_000
const throttles = 5_000
const admissions = quick ? 500_000 : 10_000_000
const often = 1_000_000_000

const parked: Record<string, Effect.Effect<void>> = {
  bare: Effect.callback(() => {}),
  concurrency: Effect.never.pipe(Throttle.concurrency({ limit: 1 })),
  rate: Effect.never.pipe(Throttle.rate({ limit: 1, per: "1 day" })),
  semaphore: Semaphore.makeUnsafe(1).withPermit(Effect.never)
}

const waiting = (name: string) =>
  Effect.gen(function*() {
    // The first one passes, and starts whatever starts once.
    for (let i = 0; i < 10; i++) yield* Effect.forkChild(parked[name]!, { startImmediately: true })
    const before = collectGarbage()
    for (let i = 0; i < waiters; i++) yield* Effect.forkChild(parked[name]!, { startImmediately: true })
    return (collectGarbage() - before) / waiters
  })

const policies: Record<string, () => Throttle.Policy<never>> = {
  rate: () => Throttle.rate({ limit: 10 }),
  concurrency: () => Throttle.concurrency({ limit: 10 }),
  window: () => Throttle.window({ limit: 10, per: "1 second" })
}

const idle = (name: string) =>
  Effect.gen(function*() {
    const policy = policies[name]!()
    const kept: Array<Throttle.Throttle> = [yield* Throttle.make(policy)]
    const before = collectGarbage()
    for (let i = 0; i < throttles; i++) kept.push(yield* Throttle.make(policy))
    const after = collectGarbage()
    return (after - before) / (kept.length - 1)
  })

/** A window whose log is full. */
const log = Effect.gen(function*() {
  const size = 10_000
  const throttle = yield* Throttle.make(Throttle.window({ limit: size, per: "1 day" }))
  yield* throttle.wait()
  const before = collectGarbage()
  for (let i = 1; i < size; i++) yield* throttle.wait()
  return (collectGarbage() - before) / size
})

const growing: Record<string, Effect.Effect<void>> = {
  rate: Effect.void.pipe(Throttle.rate({ limit: often, burst: often })),
  concurrency: Effect.void.pipe(Throttle.concurrency({ limit: 10 })),
  window: Effect.void.pipe(Throttle.window({ limit: often, per: 1 }))
}

/** How much the heap grows from the first tenth of the admissions to the last. */
const growth = (name: string) =>
  Effect.gen(function*() {
    const effect = growing[name]!
    for (let i = 0; i < admissions / 10; i++) yield* effect
    const before = collectGarbage()
    for (let i = admissions / 10; i < admissions; i++) yield* effect
    return (collectGarbage() - before) / 1e6
  })

export const own = (what: string, name: string): Run => async () => {
  const program = what === "waiting"
    ? waiting(name)
    : what === "idle"
    ? idle(name)
    : what === "log"
    ? log
    : growth(name)
  return {
    figure: await Effect.runPromise(Effect.scoped(Effect.provideService(program, References.TracerEnabled, false)))
  }
}

export const section = async (): Promise<Section> => {
  const some = <A>(all: ReadonlyArray<A>): ReadonlyArray<A> => quick ? all.slice(0, 2) : all
  const cases = [
    ...some(Object.keys(parked)).map((name) => ["waiting", name] as const),
    ...some(Object.keys(policies)).map((name) => ["idle", name] as const),
    ["log", "window"] as const,
    ...some(Object.keys(growing)).map((name) => ["growth", name] as const)
  ]
  const seen = await rounds(
    { warmup: 0, count: 1 },
    Object.fromEntries(cases.map(([what, name]) => [`${what} ${name}`, ["memory", what, name]]))
  )
  const of = (key: string) => seen[key]!.figure!
  const bare = of("waiting bare")
  return {
    title: "Memory",
    about:
      `After a full garbage collection, tracing off: for each of ${
        count(waiters)
      } waiting calls over a fiber that is ` +
      `merely suspended (${ns(bare)} bytes), for each of ${
        count(throttles)
      } idle throttles, and how much the heap grew ` +
      `while nine tenths of ${count(admissions)} calls were let in.`,
    columns: ["bytes", "MB"],
    rows: [
      ...some(Object.keys(parked)).slice(1).map((name) => ({
        what: name === "semaphore" ? "waiting for Effect's `Semaphore`" : `waiting for \`${name}\``,
        figures: [ns(of(`waiting ${name}`) - bare)]
      })),
      ...some(Object.keys(policies)).map((name) => ({
        what: `an idle throttle, \`${name}\``,
        figures: [ns(of(`idle ${name}`))]
      })),
      { what: "each start that a sliding window remembers", figures: [ns(of("log window"))] },
      ...some(Object.keys(growing)).map((name) =>
        atMost(`growth, \`${name}\``, ["", ratio(of(`growth ${name}`))], of(`growth ${name}`), 0.2, " MB")
      )
    ]
  }
}
