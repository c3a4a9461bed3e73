/**
 * A {@link ThrottleStore} in Redis 7 or later, or Valkey: atomic scripts, on the server's clock.
 *
 * @since 0.1.0
 * @module RedisStore
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import type * as Types from "effect/Types"
import { detailOf } from "./internal/detail.ts"
import { grace, grainOf, type Rule, type Rules } from "./internal/rules.ts"
import * as Scripts from "./internal/scripts.ts"
import { type Decision, type Request, StoreFailure, ThrottleStore } from "./ThrottleStore.ts"

/** Rules as the scripts read them. */
const written = ({ gates, timings }: Rules): string => JSON.stringify({ gates, timings: timings.map(completed) })

const completed = (rule: Rule) =>
  rule.kind === "rate"
    ? { ...rule, grace }
    : rule.kind === "sliding"
    ? { ...rule, grain: grainOf(rule.per, rule.limit) }
    : rule

/** Beyond any wait, as Lua reads it. */
const forever = 1e18

/**
 * All keys of a limiter lie in one hash slot: the part in braces decides. An update may have taken concurrency away while
 * permits were held: these come back all the same.
 */
const keysOf = ({ key, releases, rules }: Request): ReadonlyArray<string> => {
  const keys = [key]
  for (const rule of rules.timings) if (rule.kind === "sliding") keys.push(`${key}:${rule.field}`)
  if (hasLeases(rules, releases)) keys.push(leasesKey(key), `${key}:line`)
  return keys
}

const hasLeases = ({ gates }: Rules, releases: ReadonlyArray<string>): boolean => gates.length + releases.length > 0

const leasesKey = (key: string): string => `${key}:leases`

/** A request as the scripts read it. What it leaves out, they know: reading JSON is a good part of their time. */
const asked = (request: Request): string => {
  const { isDry, releases, returns, rules, runs, settlements, settleWithin, since, waited } = request
  const { channel, firstLease, joins, owner, patience, ttl } = request
  const written: Partial<Types.Mutable<Request>> = { runs, maxWait: Math.min(request.maxWait, forever) }
  if (waited > 0 && since !== undefined) Object.assign(written, { since, waited })
  if (isDry) written.isDry = true
  if (returns !== undefined) written.returns = returns
  if (settlements.length > 0) written.settlements = settlements
  if (settleWithin > 0) written.settleWithin = settleWithin
  if (hasLeases(rules, releases)) {
    Object.assign(written, { channel, firstLease, joins, owner, patience, releases, ttl })
  }
  return JSON.stringify(written)
}

const some = (n: number | undefined): number | undefined => n === undefined || n < 0 ? undefined : n

const decisionOf = (answer: ReadonlyArray<number>): Decision => {
  const [granted, slotWait, wait, busy, part, now, version, fence, expiry, paused, returned, slotAt] = answer
  return {
    granted: granted!,
    slot: slotAt! < 0 ? undefined : { at: slotAt!, wait: slotWait! },
    wait: some(wait),
    isBusy: busy === 1,
    part: part!,
    now: now!,
    version: version!,
    fence: fence!,
    nextExpiry: some(expiry),
    isPaused: paused === 1,
    hasReturned: returned === 1
  }
}

/**
 * What the server says of one request: a key that holds something else, keys of several slots, a mistake in a script. All
 * else it may say (OOM, LOADING, READONLY, …) goes for every request.
 */
const isRefusal = (cause: Redis.RedisError): boolean => /^(WRONGTYPE|CROSSSLOT|ERR) /.test(detailOf(cause))

const failed = Effect.mapError((cause: Redis.RedisError) =>
  new StoreFailure({ outcome: isRefusal(cause) ? "refused" : "unavailable", cause })
)

/**
 * The store on a Redis client. `time`: what the scripts take for the server's clock, in microseconds; for tests only.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (redis: Redis.Redis["Service"], time?: () => number): ThrottleStore => {
  const decide = redis.eval(Scripts.decide)
  const renew = redis.eval(Scripts.renew)
  const pause = redis.eval(Scripts.pause)
  const now = () => time === undefined ? "" : String(time())
  // A limiter asks with the same rules again and again.
  const rules = new WeakMap<Rules, string>()
  const writtenOnce = (given: Rules): string => {
    let text = rules.get(given)
    if (text === undefined) rules.set(given, text = written(given))
    return text
  }
  return {
    decide: (request) =>
      Effect.suspend(() =>
        failed(
          Effect.map(
            decide(keysOf(request), [now(), writtenOnce(request.rules), asked(request)]),
            decisionOf
          )
        )
      ),
    renew: (key, leases, ttl) =>
      Effect.suspend(() =>
        failed(
          Effect.map(
            renew([key, leasesKey(key)], [now(), JSON.stringify({ leases, ttl })]),
            (answers) => answers.map((answer) => answer === 1)
          )
        )
      ),
    pause: (key, micros) =>
      Effect.suspend(() => failed(Effect.asVoid(pause([key], [now(), Math.min(micros, forever / 1e3)])))),
    wakeups: (channel) =>
      Effect.gen(function*() {
        const messages = yield* redis.subscribe(channel)
        const keys = yield* Queue.unbounded<string, StoreFailure>()
        yield* Queue.take(messages).pipe(
          Effect.flatMap(({ message }) => Queue.offer(keys, message)),
          Effect.forever,
          Effect.catch((cause) => Queue.fail(keys, new StoreFailure({ outcome: "unavailable", cause }))),
          Effect.forkScoped
        )
        return keys
      })
  }
}

/**
 * The store on the `Redis` that is provided, by the server's clock.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<ThrottleStore, never, Redis.Redis> = Layer.effect(
  ThrottleStore,
  Effect.map(Redis.Redis, (redis) => make(redis))
)
