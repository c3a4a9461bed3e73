/**
 * What an answer means for its request and for others, where nothing is learned: a pause, and a retry.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Pull from "effect/Pull"
import * as Schedule from "effect/Schedule"
import { metrics } from "../clientStatistics.ts"
import { timeOf } from "./pacer.ts"
import * as RetryBudget from "./retryBudget.ts"
import { type Again, later, monotonic, pause, type Received, type Sending, type Step } from "./sending.ts"
import { nameOf } from "./source.ts"

/** Whether a request is to be sent again; asks the program. Undefined where it is not. */
export type Decision = Effect.Effect<Again | undefined>

/**
 * Pauses the throttle as the answer asks; undefined where it asks nothing. Where that names a time it does so before anything of the program is asked;
 * where it names none the schedule has to say how long, and the permits are held meanwhile.
 */
export const holdBack = <E, R>(
  sending: Sending<E, R>,
  received: Received
): Effect.Effect<Decision | undefined> | undefined => {
  const { reading: { from, refusal, wait }, response, restore, turn } = received
  if (wait > 0) {
    const millis = later(sending, wait)
    const again = decide(sending, received, timeOf(Fiber.getCurrent()!) + millis * 1e6)
    return Effect.as(pause(turn, response, from, millis), refusal === undefined ? undefined : again)
  }
  if (refusal === undefined) return undefined
  const again = decide(sending, received, undefined)
  // Without a time it is no limit that others would meet as well.
  if (refusal !== "limit") return Effect.succeed(again)
  return Effect.flatMap(restore(again), (again) => {
    const decided = Effect.succeed(again)
    return again === undefined || again.wait === 0
      ? Effect.succeed(decided)
      : Effect.as(pause(turn, response, from, again.wait), decided)
  })
}

/** Whether the request is to be sent again, and when: at the time that the answer named, or as the schedule says. */
export const decide = (sending: Sending<any, any>, received: Received, named: number | undefined): Decision =>
  Effect.flatMap(nextDelay(sending, received), (next) => {
    if (next === undefined) return Effect.undefined
    const { body, reading: { refusal }, response } = received
    return Effect.clockWith((clock) => {
      const notBefore = named ?? monotonic(clock) + next.wait * 1e6
      const isAlone = named === undefined && refusal !== "limit"
      return Effect.succeed({ ...next, response, body, notBefore, isAlone, place: undefined })
    })
  })

/** Whether the server, the program and its schedule let the request be repeated, and after how many milliseconds. */
export const nextDelay = Effect.fnUntraced(
  function*(sending: Sending<any, any>, { before, reading, response }: Received) {
    const { settings } = sending
    if (!mayRepeat(sending, reading.retry, response)) return undefined
    const step: Step = before?.step ?? (yield* Schedule.toStep(settings.retry))
    const clock = yield* Clock.Clock
    const next = yield* Pull.catchDone(step(clock.currentTimeMillisUnsafe(), response), () => Effect.undefined)
    if (next === undefined || !(yield* isInBudget(sending, monotonic(clock)))) return undefined
    return { step, wait: later(sending, Duration.toMillis(next[1])) }
  }
)

const isInBudget = (sending: Sending<any, any>, now: number): Effect.Effect<boolean> => {
  const { gate, key, remembered, settings: { retryBudget } } = sending
  if (remembered === undefined || retryBudget === undefined) return Effect.succeed(true)
  if (RetryBudget.withdraw(remembered.budget, retryBudget, now)) return Effect.succeed(true)
  remembered.counters.denied++
  return Effect.as(
    Metric.update(Metric.withAttributes(metrics.retriesDenied, { throttle: nameOf(gate, key) }), 1),
    false
  )
}

export const mayRepeat = (
  { request, settings }: Sending<any, any>,
  wanted: boolean | undefined,
  response: Received["response"]
): boolean => wanted !== false && settings.retryIf(request, response, wanted)
