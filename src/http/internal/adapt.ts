/**
 * What an answer means for its request and for others, where the server's limit is learned.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Observe from "../../internal/observe.ts"
import { metrics } from "../clientStatistics.ts"
import type { Limit } from "../limits.ts"
import { decide, type Decision, mayRepeat, nextDelay } from "./decide.ts"
import * as Learner from "./learning/learner.ts"
import type { Fields } from "./learning/quota.ts"
import * as Memory from "./memory.ts"
import * as Pacer from "./pacer.ts"
import { type Again, later, pause, type Received, type Sending } from "./sending.ts"
import { nameOf } from "./source.ts"

/**
 * Learns from the answer, and pauses the throttle as the answer asks or as what was learned says; undefined where nothing is to
 * be done besides.
 */
export const learn = (
  sending: Sending<any, any>,
  pacer: Pacer.Pacer,
  passage: Pacer.Passage,
  received: Received
): Effect.Effect<Decision | undefined> | undefined => {
  const { reading: { from, isCached, limits, refusal, wait }, response, turn } = received
  const before = pacer.learner
  if (refusal === undefined) {
    if (isCached) return undefined
    Pacer.accepted(pacer, passage, fieldsOf(sending, limits), () => mostOf(sending))
    const observed = observeLesson(sending, before, pacer)
    const used = usedUp(limits)
    const paused = used === 0 ? undefined : pause(turn, response, from, later(sending, used))
    return observed === undefined && paused === undefined
      ? undefined
      : Effect.andThen(observed ?? Effect.void, Effect.as(paused ?? Effect.void, undefined))
  }
  // Without a time it concerns this request alone.
  if (refusal !== "limit" && wait === 0) return Effect.succeed(decide(sending, received, undefined))
  const named = wait > 0 ? wait * 1e6 : undefined
  const stretch = (nanos: number) => later(sending, nanos / 1e6) * 1e6
  const refused = Pacer.refused(pacer, passage, named, fieldsOf(sending, limits), stretch)
  const again = refused.isCharged
    ? charged(sending, received, named && stretch(named), refused.waitsAlone)
    : kept(sending, received, named && stretch(named), passage.place)
  return (observeLesson(sending, before, pacer) ?? Effect.void).pipe(
    Effect.andThen(refused.pause > 0 ? pause(turn, response, from, refused.pause / 1e6) : Effect.void),
    Effect.as(again)
  )
}

/** One attempt less: again at the end of the queue. */
const charged = (
  sending: Sending<any, any>,
  received: Received,
  named: number | undefined,
  waitsAlone: boolean
): Decision => {
  const { body, response } = received
  const from = now()
  return Effect.map(nextDelay(sending, received), (next): Again | undefined => {
    if (next === undefined) return undefined
    const wait = named ?? (waitsAlone ? next.wait * 1e6 : 0)
    return { ...next, response, body, notBefore: from + wait, isAlone: waitsAlone, place: undefined }
  })
}

/** The refusal was stale: again at its place, as if it had not been sent. Not where requests are never repeated. */
const kept = (
  sending: Sending<any, any>,
  received: Received,
  named: number | undefined,
  place: number
): Decision => {
  const { before, body, reading, response } = received
  const notBefore = now() + (named ?? 0)
  return Effect.sync((): Again | undefined =>
    sending.settings.isNeverRepeated || !mayRepeat(sending, reading.retry, response)
      ? undefined
      : { response, body, wait: 0, notBefore, isAlone: false, step: before?.step, place }
  )
}

const now = (): number => Pacer.timeOf(Fiber.getCurrent()!)

/** How many the policy allows at once. */
const mostOf = ({ gate, key }: Sending<any, any>): number | undefined => {
  const pools = gate.planOf(key)?.pools ?? []
  return pools.length === 0 ? undefined : Math.min(...pools.map(({ limit }) => limit.initial))
}

/** The limit of which the least is left, of those that count requests and say when there is more. */
const fieldsOf = (sending: Sending<any, any>, limits: ReadonlyArray<Limit>): Fields | undefined => {
  let tightest: Limit | undefined
  for (const limit of limits) {
    if (!countsRequests(limit)) continue
    const [least, latest] = [tightest?.remaining ?? Infinity, tightest?.reset ?? 0]
    const { remaining = 0, reset = 0 } = limit
    if (remaining < least || (remaining === least && reset > latest)) tightest = limit
  }
  if (tightest === undefined) return undefined
  const { from, quota, remaining = 0, reset, window } = tightest
  return {
    name: `${from} ${quota}/${window}`,
    remaining,
    reset: reset === undefined ? Infinity : Math.max(0, reset) * 1e6,
    pause: reset === undefined ? Infinity : later(sending, Math.max(0, reset)) * 1e6,
    longest: sending.settings.maxPause * 1e6,
    size: quota,
    window: window && window * 1e6
  }
}

const countsRequests = ({ remaining, reset, unit, window }: Limit): boolean =>
  unit === undefined && remaining !== undefined && remaining >= 0 && (reset !== undefined || window !== undefined)

/** Milliseconds until there is more of what is used up and counts something else than requests. */
const usedUp = (limits: ReadonlyArray<Limit>): number => {
  let longest = 0
  for (const limit of limits) {
    const { remaining = 1, reset = 0 } = limit
    if (remaining < 1 && reset > longest && !countsRequests(limit)) longest = reset
  }
  return longest
}

/** Logs what was learned and sets the gauge; undefined where nothing new was. */
const observeLesson = (
  sending: Sending<any, any>,
  before: Learner.Learner,
  { learner }: Pacer.Pacer
): Effect.Effect<void> | undefined => {
  const lesson = Learner.lesson(before, learner)
  if (lesson === undefined) return undefined
  const { gate, key, memory } = sending
  const logged = Observe.waitLog(Fiber.getCurrent()!, "throttle.learned", () => ({ key, ...lesson })) ?? Effect.void
  if (!Memory.hasSeries(memory, key)) return logged
  const series = Metric.withAttributes(metrics.learnedRate, { throttle: nameOf(gate, key), key })
  return Effect.andThen(logged, Metric.update(series, lesson.rate))
}
