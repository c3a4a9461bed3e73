/**
 * A throttled request on its way: what it is made of, and what is done about it in more than one place.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import type * as Schedule from "effect/Schedule"
import * as Observe from "../../internal/observe.ts"
import type * as Body from "./body.ts"
import type * as Memory from "./memory.ts"
import type { Passage } from "./pacer.ts"
import type { Reading } from "./reading.ts"
import { originOf } from "./request.ts"
import type { Settings } from "./settings.ts"
import type { Gate, Turn } from "./source.ts"

export type Response = HttpClientResponse.HttpClientResponse

/** A request on its way: what it waits for, and what sends it. */
export interface Sending<E, R> {
  readonly settings: Settings
  readonly gate: Gate
  readonly memory: Memory.Memory
  /** What is remembered of the key while it is sent; undefined where there is no room for it. */
  remembered: Memory.Remembered | undefined
  /** Where this client comes back within the jitter, from 0 to 1. */
  readonly spread: number
  readonly isScoped: boolean
  readonly request: HttpClientRequest.HttpClientRequest
  readonly key: string
  readonly effect: Effect.Effect<Response, E, R>
}

/** When to send a request again, and whether: the schedule, as far as this request has come in it. */
export type Step = Effect.Success<ReturnType<typeof Schedule.toStep<unknown, Response, never, never>>>

/** An attempt that was made. */
export interface Attempt<E> {
  readonly exit: Exit.Exit<Response, E>
  /** Set where it was refused: whether the request is to be sent again. Asks the program, so others need not wait for it. */
  readonly again: Effect.Effect<Again | undefined> | undefined
}

/** A request that is to be sent again. */
export interface Again {
  readonly response: Response
  readonly body: Body.Body | undefined
  /** The milliseconds that the schedule says. */
  readonly wait: number
  /** The monotonic instant, in nanoseconds, before which it must not be sent. */
  readonly notBefore: number
  /** Whether no throttle is paused until then. */
  readonly isAlone: boolean
  /** Undefined as long as nothing has asked the schedule. */
  readonly step: Step | undefined
  /** Its place in the queue of what was learned; undefined for the end. */
  readonly place: number | undefined
}

/** An answer that is there, while the permits are still held. */
export interface Received {
  readonly response: Response
  readonly reading: Reading
  /** The answer's body, where it was looked at. */
  readonly body: Body.Body | undefined
  readonly turn: Turn
  /** How the request came through the pacer; undefined where it went past it. */
  readonly passage: Passage | undefined
  readonly before: Again | undefined
  readonly restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

export const monotonic = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe())

/** No more than this is added, however long the wait. */
const mostJitter = 5_000

export const later = ({ settings: { jitter, maxPause }, spread }: Sending<any, any>, millis: number): number => {
  // First, for an endless wait times no jitter is no number.
  const wait = Math.min(maxPause, millis)
  return Math.min(maxPause, wait + spread * Math.min(wait * jitter, mostJitter))
}

/** A throttle that is closed, or has no room for the key any more, has nobody to hold back: the answer is an answer. */
export const pause = (
  turn: Turn,
  response: Response,
  from: string | undefined,
  millis: number
): Effect.Effect<unknown> => Effect.exit(Effect.annotateLogs(turn.pause(millis), about(response, from)))

export const about = (response: Response, from?: string) => ({
  server: originOf(response.request),
  status: response.status,
  ...(from === undefined ? undefined : { from })
})

/** Timers tick in milliseconds, so what is less than one is nothing. */
export const millisUntil = ({ notBefore }: Again): Effect.Effect<number> =>
  Effect.clockWith((clock) => {
    const millis = (notBefore - monotonic(clock)) / 1e6
    return Effect.succeed(millis < 1 ? 0 : millis)
  })

/** No throttle tells of this wait. */
export const waitAlone = (again: Again): Effect.Effect<void> =>
  Effect.flatMap(millisUntil(again), (millis) =>
    millis === 0
      ? Effect.void
      : Observe.retryWait(
        Fiber.getCurrent()!,
        Effect.sleep(millis),
        () => ({ ...about(again.response), wait: millis })
      ))
