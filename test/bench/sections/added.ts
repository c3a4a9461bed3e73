/** What a throttle adds to a call while no call waits, beside libraries for promises. */
import { Sema } from "async-sema"
import Bottleneck from "bottleneck"
import { bulkhead } from "cockatiel"
import { Effect, Semaphore } from "effect"
import { Throttle } from "effect-throttle"
import { RateLimiter as EffectRateLimiter } from "effect/persistence"
import { RateLimiter } from "limiter"
import pLimit from "p-limit"
import PQueue from "p-queue"
import pThrottle from "p-throttle"
import { RateLimiterMemory } from "rate-limiter-flexible"
import { quick, rounds, type Run, timed } from "../harness.ts"
import { ns, ratio, type Row, type Section } from "../report.ts"

const often = 1_000_000_000

const task = async (): Promise<void> => {}
const effect = Effect.sync(() => {})

/** One call by way of a library. */
const promises: Record<string, () => () => Promise<unknown>> = {
  promise: () => task,
  "p-throttle": () => pThrottle({ limit: often, interval: 1_000 })(task),
  limiter: () => {
    const limiter = new RateLimiter({ tokensPerInterval: often, interval: "second" })
    return async () => {
      await limiter.removeTokens(1)
      await task()
    }
  },
  tryRemoveTokens: () => {
    const limiter = new RateLimiter({ tokensPerInterval: often, interval: "second" })
    return async () => {
      if (limiter.tryRemoveTokens(1)) await task()
    }
  },
  "rate-limiter-flexible": () => {
    const limiter = new RateLimiterMemory({ points: often, duration: 1 })
    return async () => {
      await limiter.consume("a")
      await task()
    }
  },
  "p-limit": () => {
    const limit = pLimit(10)
    return () => limit(task)
  },
  "p-queue": () => {
    const queue = new PQueue({ concurrency: 10 })
    return () => queue.add(task)
  },
  "async-sema": () => {
    const sema = new Sema(10)
    return async () => {
      await sema.acquire()
      try {
        await task()
      } finally {
        sema.release()
      }
    }
  },
  cockatiel: () => {
    const policy = bulkhead(10)
    return () => policy.execute(task)
  },
  bottleneck: () => {
    const limiter = new Bottleneck({ maxConcurrent: 10 })
    return () => limiter.schedule(task)
  }
}

const throttle = Effect.runSync(Throttle.inline(Throttle.rate({ limit: often, burst: often })))

const effects: Record<string, Effect.Effect<void, unknown, EffectRateLimiter.RateLimiter>> = {
  effect,
  semaphore: Semaphore.makeUnsafe(10).withPermit(effect),
  rateLimiter: Effect.flatMap(EffectRateLimiter.RateLimiter, (limiter) =>
    Effect.flatMap(
      limiter.consume({ key: "a", limit: often, window: "1 second", algorithm: "token-bucket", onExceeded: "delay" }),
      () => effect
    )),
  rate: Throttle.rate({ limit: often, burst: often })(effect),
  wait: Effect.andThen(throttle.wait(), effect),
  allow: Effect.flatMap(throttle.allow(), (isAllowed) => isAllowed ? effect : Effect.void),
  concurrency: Throttle.concurrency({ limit: 10 })(effect)
}

/** Slow ones make fewer calls. */
const callsOf = (name: string): number => name === "bottleneck" ? 5 : 10_000

const loopOf = (name: string, calls: number): () => Promise<unknown> => {
  const effect = effects[name]
  if (effect !== undefined) {
    const loop = Effect.gen(function*() {
      for (let i = 0; i < calls; i++) yield* effect
    }).pipe(Effect.provide(EffectRateLimiter.layer), Effect.provide(EffectRateLimiter.layerStoreMemory))
    return () => Effect.runPromise(loop)
  }
  const call = promises[name]!()
  return async () => {
    for (let i = 0; i < calls; i++) await call()
  }
}

export const own = (name: string): Run => {
  const calls = callsOf(name)
  const loop = loopOf(name, calls)
  return async () => ({ ns: await timed(loop) / calls })
}

/** Those that no bar is for: left out of a quick run. */
const others = new Set(["rate-limiter-flexible", "async-sema", "cockatiel", "bottleneck"])

export const section = async (): Promise<Section> => {
  const names = [...Object.keys(effects), ...Object.keys(promises)]
    .filter((name) => !quick || !others.has(name))
  const seen = await rounds(
    { warmup: 20, count: quick ? 15 : 101 },
    Object.fromEntries(names.map((name) => [name, ["added", name]]))
  )
  const added = (name: string) => seen[name]!.ns! - seen[name in effects ? "effect" : "promise"]!.ns!
  const line = (what: string, name: string, mine: string): Row => ({
    what,
    figures: [ns(added(name)), ratio(added(name) / added(mine))]
  })
  const barred = (name: string, mine: string): Row => ({
    ...line(name, name, mine),
    bar: `more than \`${mine}\``,
    holds: added(name) > added(mine),
    judged: `${ratio(added(name) / added(mine))} × ours`
  })
  return {
    title: "Nobody waiting, added to a call",
    about:
      "With the throttle minus without it, each in its own runtime: a loop of `await` for promises, of `yield*` for " +
      "effects. A process for each.",
    columns: ["ns added a call", "× ours"],
    rows: [
      line("`rate`", "rate", "rate"),
      barred("p-throttle", "rate"),
      barred("limiter", "rate"),
      line("Effect's RateLimiter (memory)", "rateLimiter", "rate"),
      line("`wait`, then the call", "wait", "allow"),
      line("`allow`, then the call", "allow", "allow"),
      line("limiter's `tryRemoveTokens`, then the call", "tryRemoveTokens", "allow"),
      line("`concurrency`", "concurrency", "concurrency"),
      barred("p-limit", "concurrency"),
      barred("p-queue", "concurrency"),
      line("Effect's `Semaphore`", "semaphore", "concurrency"),
      ...(quick ? [] : [
        line("rate-limiter-flexible (refuses, does not wait)", "rate-limiter-flexible", "rate"),
        line("async-sema", "async-sema", "concurrency"),
        line("cockatiel (bulkhead)", "cockatiel", "concurrency"),
        line("bottleneck", "bottleneck", "concurrency")
      ])
    ]
  }
}
