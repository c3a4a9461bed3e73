/**
 * A throttled request on its way: attempts, what their answers mean for everybody, and retries.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as HttpClientError from "effect/http/HttpClientError"
import type * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Option from "effect/Option"
import * as Pull from "effect/Pull"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Observe from "../../internal/observe.ts"
import type * as Throttle from "../../Throttle.ts"
import type { ThrottleError } from "../../ThrottleError.ts"
import { type Parser, read, type Verdict } from "../limits.ts"
import { canBeSentAgain, originOf } from "./request.ts"
import type { Gate } from "./source.ts"

type Response = HttpClientResponse.HttpClientResponse

/** A client's options, checked and with their defaults. */
export interface Settings {
  readonly key: (request: HttpClientRequest.HttpClientRequest) => string
  readonly cost: (request: HttpClientRequest.HttpClientRequest) => Throttle.Cost | undefined
  readonly retry: Schedule.Schedule<unknown, Response>
  readonly retryIf: (request: HttpClientRequest.HttpClientRequest, response: Response) => boolean
  readonly parsers: ReadonlyArray<Parser>
  readonly maxPause: number
  readonly jitter: number
}

/** A request on its way: what it waits for, and what sends it. */
export interface Sending<E, R> {
  readonly settings: Settings
  readonly gate: Gate
  /** Where this client comes back within the jitter, from 0 to 1. */
  readonly spread: number
  readonly isScoped: boolean
  readonly request: HttpClientRequest.HttpClientRequest
  readonly key: string
  readonly effect: Effect.Effect<Response, E, R>
}

/** When to send a request again, and whether: the schedule, as far as this request has come in it. */
type Step = Effect.Success<ReturnType<typeof Schedule.toStep<unknown, Response, never, never>>>

/** An attempt that was let in. */
interface Attempt<E> {
  readonly exit: Exit.Exit<Response, E>
  /** Set where the request is to be sent again. */
  readonly again: Again | undefined
}

interface Again {
  readonly response: Response
  /** Milliseconds that this request waits before it stands in line. */
  readonly alone: number
  /** The monotonic instant, in nanoseconds, before which it must not be sent. */
  readonly notBefore: number
  readonly step: Step
}

/** Waits for its turn, sends the request, and sends it again as the answer and the settings say. */
export const send = <E, R>(sending: Sending<E, R>): Effect.Effect<Response, E | ThrottleError, R> =>
  Effect.flatMap(attempt(sending, undefined), (first) => sendAgain(sending, first))

/** Until the schedule ends, or an answer is one to give. */
const sendAgain = <E, R>(sending: Sending<E, R>, last: Attempt<E>): Effect.Effect<Response, E, R> => {
  const { again, exit } = last
  if (again === undefined) return exit
  return readOut(again.response).pipe(
    Effect.andThen(again.alone > 0 ? Effect.sleep(again.alone) : Effect.void),
    Effect.andThen(Effect.result(attempt(sending, again))),
    // The policy's bounds do not let it wait: then what it was answered stands.
    Effect.flatMap((next) => Result.isFailure(next) ? exit : sendAgain(sending, next.success))
  )
}

/**
 * Waits for the turn, sends, and hears what the answer says before the permits go back: those in line must not start
 * between the answer and the pause that it asks for. Fails where the throttle refuses.
 */
const attempt = <E, R>(
  sending: Sending<E, R>,
  before: Again | undefined
): Effect.Effect<Attempt<E>, ThrottleError, R> => {
  const { effect, gate, isScoped, key, request, settings } = sending
  const sent = Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.exit(restore(effect)), (exit) => {
      const response = responseOf(exit)
      const heard = response === undefined ? Effect.undefined : hear(sending, response, before?.step)
      return Effect.map(heard, (again): Attempt<E> => ({ exit, again }))
    })
  )
  return Effect.acquireUseRelease(
    isScoped ? Effect.flatMap(Scope.Scope, Scope.fork) : Scope.make(),
    (scope) =>
      Scope.provide(gate.take(key, settings.cost(request)), scope).pipe(
        Effect.andThen(before === undefined ? sent : Effect.andThen(sleepUntil(before.notBefore), sent))
      ),
    (scope, exit) => isScoped && isAnswered(exit) ? Effect.void : Scope.close(scope, exit)
  ) as Effect.Effect<Attempt<E>, ThrottleError, R>
}

/** Whether there is an answer whose body is still to be read. */
const isAnswered = (exit: Exit.Exit<Attempt<unknown>, unknown>): boolean =>
  Exit.isSuccess(exit) && exit.value.again === undefined && Exit.isSuccess(exit.value.exit)

/** The answer, also where the client has made an error of its status. */
const responseOf = (exit: Exit.Exit<Response, unknown>): Response | undefined => {
  if (Exit.isSuccess(exit)) return exit.value
  const error = Option.getOrUndefined(Exit.findErrorOption(exit))
  return HttpClientError.isHttpClientError(error) && error.reason._tag === "StatusCodeError"
    ? error.reason.response
    : undefined
}

/** Pauses the throttle as the answer asks, and says whether the request is to be sent again. */
const hear = <E, R>(
  sending: Sending<E, R>,
  response: Response,
  step: Step | undefined
): Effect.Effect<Again | undefined> =>
  Effect.clockWith((clock) => {
    const verdict = read(response, clock.currentTimeMillisUnsafe(), sending.settings.parsers)
    return verdict.refused || verdict.wait > 0 ? obey(sending, response, verdict, step) : Effect.undefined
  })

const obey = Effect.fnUntraced(function*<E, R>(
  sending: Sending<E, R>,
  response: Response,
  { from, refused, retry, wait }: Verdict,
  known: Step | undefined
) {
  const { request, settings } = sending
  const clock = yield* Clock.Clock
  const isWanted = refused && retry !== false &&
    (settings.retryIf(request, response) || (retry === true && canBeSentAgain(request.body)))
  const step = known ?? (yield* Schedule.toStep(settings.retry))
  const next = isWanted
    ? yield* Pull.catchDone(step(clock.currentTimeMillisUnsafe(), response), () => Effect.undefined)
    : undefined
  // A 503 without a time is no limit that others would meet as well.
  const isAlone = wait === 0 && response.status === 503
  const asked = wait > 0 || next === undefined ? wait : Duration.toMillis(next[1])
  const millis = later(sending, Math.min(settings.maxPause, asked))
  const notBefore = Number(clock.monotonicTimeNanosUnsafe()) + millis * 1e6
  if (millis > 0 && !isAlone) yield* pause(sending, response, from, millis)
  return next && { response, alone: isAlone ? millis : 0, notBefore, step }
})

/** No more than this is added, however long the wait. */
const mostJitter = 5_000

const later = ({ settings: { jitter }, spread }: Sending<any, any>, millis: number): number =>
  millis + spread * Math.min(millis * jitter, mostJitter)

/** A throttle that is closed, or has no room for the key any more, has nobody to hold back: the answer is an answer. */
const pause = ({ gate, key }: Sending<any, any>, response: Response, from: string | undefined, wait: number) =>
  Effect.andThen(
    Effect.exit(gate.pause(key, wait)),
    Effect.suspend(() =>
      Observe.tellPaused(Fiber.getCurrent()!, () => ({
        server: originOf(response.request),
        status: response.status,
        ...(from === undefined ? undefined : { from }),
        wait
      })) ?? Effect.void
    )
  )

/**
 * A throttle in shadow lets in at once, and so may one that somebody resumed: but the server has said when. Timers tick
 * in milliseconds, so what is less than one is nothing.
 */
const sleepUntil = (instant: number): Effect.Effect<void> =>
  Effect.clockWith((clock) => {
    const millis = (instant - Number(clock.monotonicTimeNanosUnsafe())) / 1e6
    return millis >= 1 ? Effect.sleep(millis) : Effect.void
  })

/**
 * Until its body is read, an answer keeps its connection. As bytes, since clients keep those: where the answer is the last
 * word after all, it can still be read.
 */
const readOut = (response: Response): Effect.Effect<void> =>
  response.arrayBuffer.pipe(Effect.timeoutOption("1 second"), Effect.ignore)
