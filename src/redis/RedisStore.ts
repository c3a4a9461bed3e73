/**
 * A {@link ThrottleStore} in Redis 7 or later, or Valkey, by atomic scripts on the server's clock.
 *
 * @since 0.1.0
 * @module RedisStore
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import { detailOf } from "./internal/detail.ts"
import * as Evaluate from "./internal/evaluate.ts"
import type { Rules } from "./internal/rules.ts"
import * as Scripts from "./internal/scripts.ts"
import * as Wire from "./internal/wire.ts"
import { StoreFailure, ThrottleStore } from "./ThrottleStore.ts"

/** Whether the user may not run a command, or the server does not know it: no request will succeed. */
const isUnusable = (detail: string): boolean =>
  /^ERR (The user executing the script can't run|Unknown Redis command|unknown command|unsupported command)/i
    .test(detail) || /^ERR .*not (allowed|supported)/i.test(detail) || /^NOPERM .*command/.test(detail)

/**
 * Whether an error reply is about this request alone: a key of another type or that the user may not use, keys of several
 * slots or of one that is being moved (TRYAGAIN), an error in the script. All other replies (OOM, LOADING, READONLY, …) apply
 * to every request.
 */
const isRefusal = (detail: string): boolean =>
  !isUnusable(detail) &&
  (/^(WRONGTYPE|CROSSSLOT|TRYAGAIN|NOPERM) /.test(detail) || (detail.startsWith("ERR ") && Evaluate.isOfScript(detail)))

/**
 * Makes a store on a Redis client. `time` replaces the server's clock, in microseconds; for tests only.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (redis: Redis.Redis["Service"], time?: () => number): ThrottleStore => {
  const evaluate = Evaluate.make(redis.send)
  const decide = evaluate<Wire.Reply>(Scripts.decide)
  const decideTogether = evaluate<Wire.ReplyTogether>(Scripts.decideTogether)
  const renew = evaluate<ReadonlyArray<number>>(Scripts.renew)
  const pause = evaluate<number>(Scripts.pause)
  const reset = evaluate<number>(Scripts.reset)
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
  const encoders = new WeakMap<Rules, (millis: number) => string>()
  const encodeRules = (rules: Rules, clock: Clock.Clock): string => {
    let encode = encoders.get(rules)
    if (encode === undefined) encoders.set(rules, encode = Wire.rulesEncoder(rules))
    return encode(time === undefined ? clock.currentTimeMillisUnsafe() : time() / 1e3)
  }
  return {
    decide: (request) =>
      Clock.clockWith((clock) => {
        const args = [now(), encodeRules(request.rules, clock), Wire.encodeRequest(request)]
        return failed(Effect.map(decide(Wire.keysOf(request), args), Wire.decodeReply))
      }),
    decideTogether: (requests) =>
      Clock.clockWith((clock) => {
        const keys = requests.map(Wire.keysOf)
        const args = requests.flatMap((request, i) => [
          String(keys[i]!.length),
          encodeRules(request.rules, clock),
          Wire.encodeRequest(request)
        ])
        return failed(Effect.map(decideTogether(keys.flat(), [now(), ...args]), Wire.decodeTogether))
      }),
    renew: (key, leases, ttl) =>
      Effect.suspend(() => {
        const answers = renew([key, Wire.leasesKey(key)], [now(), JSON.stringify({ leases, ttl })])
        return failed(Effect.map(answers, (answers) => answers.map((answer) => answer === 1)))
      }),
    pause: (key, micros) =>
      Effect.suspend(() => failed(Effect.asVoid(pause([key], [now(), Wire.encodeDuration(micros)])))),
    reset: (key) => Effect.suspend(() => failed(Effect.asVoid(reset([key], [now()])))),
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
 * Provides the store on a `Redis`, by the server's clock.
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
