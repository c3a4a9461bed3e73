/** What a decision in Redis costs, beside the least that it can cost: a bare EVALSHA of a GCRA script. */
import { NodeRedis } from "@effect/platform-node"
import { Effect, Layer, ManagedRuntime, References, Scope } from "effect"
import { Throttle } from "effect-throttle"
import { RedisStore, RedisThrottle } from "effect-throttle/redis"
import { RateLimiter, Redis } from "effect/persistence"
import { RateLimiterRedis } from "rate-limiter-flexible"
import { quick, rounds, type Run, timed } from "../harness.ts"
import { isInstalled, missing, withServer } from "../redis-server.ts"
import { atLeast, count, ratio, type Row, type Section, us } from "../report.ts"

/** Nobody ever waits. */
const often = 1_000_000_000

const gcra = `
local t = redis.call('TIME')
local now = t[1] * 1e6 + t[2]
local interval, capacity, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local due = tat - (capacity - cost) * interval
if due > now then return math.ceil(due - now) end
tat = tat + cost * interval
redis.call('SET', KEYS[1], string.format('%.17g', tat), 'PX', math.ceil((tat - now) / 1000) + 1)
return 0`

const bare = Redis.script((key: string) => [key, 0.001, often, 1], { lua: gcra, numberOfKeys: 1 })

type Contender = Effect.Effect<
  Effect.Effect<unknown, unknown>,
  unknown,
  NodeRedis.NodeRedis | Redis.Redis | Scope.Scope
>

/** A call of each, ready to be made again and again. */
const contenders = {
  evalsha: Effect.gen(function*() {
    const { client } = yield* NodeRedis.NodeRedis
    const sha = yield* Effect.promise(() => client.scriptLoad(gcra))
    const options = { keys: ["bare"], arguments: ["0.001", String(often), "1"] }
    return Effect.promise(() => client.evalSha(sha, options))
  }),
  eval: Effect.map(Redis.Redis, (redis) => redis.eval(bare)("eval")),
  throttle: RedisThrottle.make(Throttle.tokenBucket({ capacity: often, refill: often }), {
    key: "throttle",
    timeout: "10 seconds"
  }).pipe(
    Effect.map((throttle) => throttle.withPermit(Effect.void)),
    Effect.provide(RedisStore.layer)
  ),
  rateLimiter: Effect.map(RateLimiter.RateLimiter, (limiter) =>
    limiter.consume({
      key: "rateLimiter",
      limit: often,
      window: "1 second",
      algorithm: "token-bucket",
      onExceeded: "delay"
    })).pipe(Effect.provide(RateLimiter.layer.pipe(Layer.provide(RateLimiter.layerStoreRedis())))),
  flexible: Effect.gen(function*() {
    const { client } = yield* NodeRedis.NodeRedis
    const options = { storeClient: client, useRedisPackage: true, points: often, duration: 1, keyPrefix: "flexible" }
    const limiter = new RateLimiterRedis(options)
    return Effect.promise(() => limiter.consume("a"))
  })
} satisfies Record<string, Contender>

type Name = keyof typeof contenders

const words: Readonly<Record<Name, string>> = {
  evalsha: "EVALSHA of a GCRA script, node-redis",
  eval: "the same through Effect's `Redis.eval`",
  throttle: "effect-throttle on Redis",
  rateLimiter: "Effect's RateLimiter on Redis",
  flexible: "rate-limiter-flexible on Redis"
}

const widths = [1, 16, 256] as const

/** Calls in a run. */
const calls = { 1: quick ? 300 : 1_000, 16: 5_120, 256: 5_120 } as const

/** So many fibers call one after another, for each number of fibers. */
export const own = (name: string, url: string): Run => {
  const runtime = ManagedRuntime.make(NodeRedis.layer({ url }))
  const scope = Effect.runSync(Scope.make())
  const ready = runtime.runPromise(
    Effect.provideService(contenders[name as Name] as Contender, Scope.Scope, scope)
  )
  const program = (call: Effect.Effect<unknown, unknown>, fibers: number, each: number) => {
    const loop = Effect.gen(function*() {
      for (let i = 0; i < each; i++) yield* call
    })
    const all = Array.from({ length: fibers }, () => loop)
    return Effect.all(all, { concurrency: "unbounded", discard: true }).pipe(
      Effect.provideService(References.TracerEnabled, false)
    )
  }
  return async () => {
    const call = await ready
    const figures: Record<string, number> = {}
    for (const width of widths) {
      const run = program(call, width, calls[width] / width)
      figures[width] = await timed(() => Effect.runPromise(run)) / 1e3 / calls[width]
    }
    return figures
  }
}

const names = Object.keys(contenders) as ReadonlyArray<Name>

export const section = async (): Promise<Section> => {
  const title = "Decisions in Redis, nobody waiting"
  if (!isInstalled()) return { title, about: missing, columns: [], rows: [] }
  // The compiler is done after some 10,000 calls; a quick run does not wait for that.
  const seen = await withServer((url) =>
    rounds(
      { warmup: quick ? 2 : 10, count: quick ? 3 : 25 },
      Object.fromEntries(names.map((name) => [name, ["redis", name, url]]))
    )
  )
  const of = (name: Name, width: 1 | 16 | 256) => seen[name]![width]!
  const figures = (name: Name) =>
    widths.flatMap((width) => [us(of(name, width)), ratio(of("evalsha", width) / of(name, width))])
  const plain = (name: Name): Row => ({ what: words[name], figures: figures(name) })
  return {
    title,
    about:
      "One key, one process, a redis-server on loopback; so many fibers call one after another. µs a call, and how many " +
      "times as many calls as the bare EVALSHA of the same run. effect-throttle asks for all calls of one moment together.",
    columns: widths.flatMap((width) => [`µs, ${count(width)} at once`, "ratio"]),
    rows: [
      ...names.map(plain),
      atLeast("effect-throttle, 1 at once", [], of("evalsha", 1) / of("throttle", 1), 0.85, " × EVALSHA"),
      atLeast(
        "effect-throttle, 256 at once",
        [],
        of("evalsha", 256) / of("throttle", 256),
        3,
        " × EVALSHA"
      )
    ]
  }
}
