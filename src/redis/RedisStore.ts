/**
 * A {@link ThrottleStore} in Redis 7 or later, or Valkey: atomic scripts, on the server's clock.
 *
 * @since 0.1.0
 * @module RedisStore
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import type * as Types from "effect/Types"
import { detailOf } from "./internal/detail.ts"
import * as Evaluate from "./internal/evaluate.ts"
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

/** Whether the user may not run a command, or the server does not know it: no request will succeed. */
const isUnusable = (detail: string): boolean =>
  /^ERR (The user executing the script can't run|Unknown Redis command|unknown command|unsupported command)/i
    .test(detail) || /^ERR .*not (allowed|supported)/i.test(detail) || /^NOPERM .*command/.test(detail)

/**
 * Whether an error reply is about this request alone: a key that holds something else or that the user may not use, keys of
 * several slots, keys of a slot that is being moved (TRYAGAIN), a mistake in the script. All other replies (OOM, LOADING, READONLY, …) hold for every request.
 */
const isRefusal = (detail: string): boolean =>
  !isUnusable(detail) &&
  (/^(WRONGTYPE|CROSSSLOT|TRYAGAIN|NOPERM) /.test(detail) || (detail.startsWith("ERR ") && Evaluate.isOfScript(detail)))

/**
 * The store on a Redis client. `time`: what the scripts take for the server's clock, in microseconds; for tests only.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (redis: Redis.Redis["Service"], time?: () => number): ThrottleStore => {
  const evaluate = Evaluate.make(redis.send)
  const decide = evaluate<ReadonlyArray<number>>(Scripts.decide)
  const renew = evaluate<ReadonlyArray<number>>(Scripts.renew)
  const pause = evaluate<number>(Scripts.pause)
  let hasLogged = false
  const failed = Effect.catch((cause: Redis.RedisError) => {
    const detail = detailOf(cause)
    const failure = (outcome: "refused" | "unavailable", cause: unknown) =>
      Effect.fail(new StoreFailure({ outcome, cause }))
    if (/^(MOVED|ASK) /.test(detail)) {
      return failure("refused", new Error("MOVED: the server is a node of a cluster; connect by RedisCluster.layer"))
    }
    if (!isUnusable(detail)) return failure(isRefusal(detail) ? "refused" : "unavailable", cause)
    if (hasLogged) return failure("unavailable", cause)
    hasLogged = true
    return Effect.andThen(
      Effect.annotateLogs(Effect.logError("throttle.store.unusable"), {
        detail,
        needed: "EVALSHA or EVAL, and the commands that are documented under Permissions"
      }),
      failure("unavailable", cause)
    )
  })
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
      Effect.suspend(() => failed(Effect.asVoid(pause([key], [now(), String(Math.min(micros, forever / 1e3))])))),
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
 * Returns the name of the server that holds a key, by which {@link layer} keeps the nodes of a cluster apart. Provided by
 * `RedisCluster.layer`. Default: one server, named "".
 *
 * @category references
 * @since 0.1.0
 */
export const NodeOf: Context.Reference<(key: string) => string> = Context.Reference<(key: string) => string>(
  "effect-throttle/redis/RedisStore/NodeOf",
  { defaultValue: () => () => "" }
)

/**
 * The store on the `Redis` that is provided, by the server's clock.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<ThrottleStore, never, Redis.Redis> = Layer.effect(
  ThrottleStore,
  Effect.gen(function*() {
    return { ...make(yield* Redis.Redis), nodeOf: yield* NodeOf }
  })
)
