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
import type { ThrottleError } from "../../ThrottleError.ts"
import * as Body from "./body.ts"
import { observe } from "./freshness.ts"
import * as Memory from "./memory.ts"
import { readAnswer, type Reading } from "./reading.ts"
import { originOf } from "./request.ts"
import type { Settings } from "./settings.ts"
import type { Gate, Turn } from "./source.ts"

type Response = HttpClientResponse.HttpClientResponse

/** A request on its way: what it waits for, and what sends it. */
export interface Sending<E, R> {
  readonly settings: Settings
  readonly gate: Gate
  readonly memory: Memory.Memory
  /** What is remembered of the key; undefined where there is no room for it. */
  readonly remembered: Memory.Remembered | undefined
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
  /** Set where it was refused: whether the request is to be sent again. Asks the program, so others need not wait for it. */
  readonly again: Effect.Effect<Again | undefined> | undefined
}

interface Again {
  readonly response: Response
  readonly body: Body.Body | undefined
  /** The milliseconds that the schedule says. */
  readonly wait: number
  /** The monotonic instant, in nanoseconds, before which it must not be sent. */
  readonly notBefore: number
  /** Whether no throttle is paused until then. */
  readonly isAlone: boolean
  readonly step: Step
}

/** Waits for its turn, sends the request, and sends it again as the answer and the settings say. */
export const send = <E, R>(
  request: Omit<Sending<E, R>, "remembered">
): Effect.Effect<Response, E | ThrottleError | HttpClientError.HttpClientError, R> => {
  let remembered: Memory.Remembered | undefined
  const now = () => monotonic(Fiber.getCurrent()!.getRef(Clock.Clock))
  return Effect.onExitPrimitive(
    Effect.suspend(() => {
      remembered = Memory.enter(request.memory, request.key, now())
      const sending = { ...request, remembered }
      const first = Effect.mapError(
        attemptInTime(sending, undefined),
        (error) => request.settings.rejectAs === "ThrottleError" ? error : asHttpError(request.request, error)
      )
      return Effect.flatMap(first, (first) => sendAgain(sending, first))
    }),
    () => {
      if (remembered !== undefined) Memory.leave(request.memory, remembered, now())
      return undefined
    }
  )
}

const asHttpError = (request: HttpClientRequest.HttpClientRequest, cause: ThrottleError) =>
  new HttpClientError.HttpClientError({
    reason: new HttpClientError.TransportError({ request, cause, description: cause.message })
  })

/** Until the schedule ends, or an answer is one to give. */
const sendAgain = <E, R>(sending: Sending<E, R>, last: Attempt<E>): Effect.Effect<Response, E, R> =>
  last.again === undefined
    ? last.exit
    : Effect.flatMap(last.again, (again) => again === undefined ? last.exit : retry(sending, last.exit, again))

/**
 * Stands in line, and reads the answer that is given up beside that: not before, since an answer that stands after all,
 * where the throttle refuses the retry on arrival, is to be as it came. The fiber that reads is begun when this one first
 * waits, and with the yield this one has all its steps until then before it.
 */
const retry = <E, R>(
  sending: Sending<E, R>,
  exit: Exit.Exit<Response, E>,
  again: Again
): Effect.Effect<Response, E, R> =>
  Effect.suspend(() => {
    let { body } = again
    let stands = false
    const read = Effect.suspend(() => stands ? Effect.void : Body.readOut(body ??= Body.make(again.response)))
    const giveUp = Effect.suspend(() => body?.giveUp ?? Effect.void)
    return Effect.gen(function*() {
      yield* Effect.yieldNow
      const reading = yield* Effect.forkChild(read)
      if (again.isAlone) yield* waitAlone(again)
      const next = yield* Effect.result(attemptInTime(sending, again))
      if (Result.isSuccess(next)) {
        yield* giveUp
        return yield* sendAgain(sending, next.success)
      }
      stands = true
      // Cut short, what was read of it would be lost.
      yield* Fiber.await(reading)
      return yield* exit
    }).pipe(Effect.onInterrupt(() => giveUp))
  })

/** A throttle in shadow lets in at once, and so may one that somebody resumed: but the server has said when. */
const attemptInTime = <E, R>(
  sending: Sending<E, R>,
  before: Again | undefined
): Effect.Effect<Attempt<E>, ThrottleError, R> =>
  Effect.flatMap(attempt(sending, before), (made) =>
    made === undefined
      ? Effect.andThen(waitAlone(before!), attemptInTime(sending, before))
      : Effect.succeed(made))

/**
 * Waits for the turn, sends, and hears what the answer says before the permits go back: those in line must not start
 * between the answer and the pause that it asks for. Fails where the throttle refuses. A turn that comes before its time is
 * given back, and there is no attempt.
 */
const attempt = <E, R>(
  sending: Sending<E, R>,
  before: Again | undefined
): Effect.Effect<Attempt<E> | undefined, ThrottleError, R> => {
  const { effect, gate, isScoped, key, request, settings } = sending
  const sent = (turn: Turn) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Effect.exit(restore(effect)), (exit) => {
        const response = responseOf(exit)
        return response === undefined
          ? Effect.succeed<Attempt<E>>({ exit, again: undefined })
          : Effect.map(hear(sending, turn, response, before?.step, restore), (again): Attempt<E> => ({ exit, again }))
      })
    )
  return Effect.acquireUseRelease(
    isScoped ? Effect.flatMap(Scope.Scope, Scope.fork) : Scope.make(),
    (scope) =>
      Effect.flatMap(
        Scope.provide(gate.take(key, settings.cost(request)), scope),
        (turn) =>
          before === undefined
            ? sent(turn)
            : Effect.flatMap(
              millisUntil(before),
              (millis) => millis > 0 ? Effect.as(turn.cancel, undefined) : sent(turn)
            )
      ),
    (scope, exit) => isScoped && isUnderWay(exit) ? Effect.void : Scope.close(scope, exit)
  ) as Effect.Effect<Attempt<E> | undefined, ThrottleError, R>
}

/** Whether there is an answer whose body the permits are for. A redirect's is not read by whoever follows it. */
const isUnderWay = (exit: Exit.Exit<Attempt<unknown> | undefined, unknown>): boolean =>
  Exit.isSuccess(exit) && exit.value !== undefined && exit.value.again === undefined &&
  Exit.isSuccess(exit.value.exit) && !isRedirect(exit.value.exit.value)

const isRedirect = ({ headers, status }: Response): boolean =>
  status >= 300 && status < 400 && headers["location"] !== undefined

/** The answer, also where the client has made an error of its status. */
const responseOf = (exit: Exit.Exit<Response, unknown>): Response | undefined => {
  if (Exit.isSuccess(exit)) return exit.value
  const error = Option.getOrUndefined(Exit.findErrorOption(exit))
  return HttpClientError.isHttpClientError(error) && error.reason._tag === "StatusCodeError"
    ? error.reason.response
    : undefined
}

/**
 * Pauses the throttle as the answer asks. Where that names a time it does so before anything of the program is asked;
 * where it names none the schedule has to say how long, and the permits are held meanwhile.
 */
const hear = <E, R>(
  sending: Sending<E, R>,
  turn: Turn,
  response: Response,
  step: Step | undefined,
  restore: <A, E2, R2>(effect: Effect.Effect<A, E2, R2>) => Effect.Effect<A, E2, R2>
): Effect.Effect<Attempt<E>["again"]> =>
  Effect.clockWith((clock) => {
    const { headers, status } = response
    const { remembered, settings } = sending
    const [now, at] = [clock.currentTimeMillisUnsafe(), monotonic(clock) / 1e6]
    const options = { ...settings, now, clock: remembered && { known: remembered.clock, at } }
    const reading = readAnswer({ status, headers }, options)
    const { date, refusal } = reading
    if (remembered !== undefined && date !== undefined) {
      remembered.clock = observe(remembered.clock, { date, now, at, isRefusal: refusal === "limit" })
    }
    if (!reading.needsBody) return holdBack(sending, turn, { response, reading, body: undefined, step, restore })
    const body = Body.make(response)
    return Effect.flatMap(restore(Body.lookAt(body)), (text) => {
      const whole = text === undefined ? reading : readAnswer({ status, headers, body: text }, options)
      return holdBack(sending, turn, { response, reading: whole, body, step, restore })
    })
  })

interface Heard {
  readonly response: Response
  readonly reading: Reading
  /** The answer's body, where it was looked at. */
  readonly body: Body.Body | undefined
  readonly step: Step | undefined
  readonly restore: <A, E2, R2>(effect: Effect.Effect<A, E2, R2>) => Effect.Effect<A, E2, R2>
}

const holdBack = <E, R>(sending: Sending<E, R>, turn: Turn, heard: Heard): Effect.Effect<Attempt<E>["again"]> =>
  Effect.clockWith((clock) => {
    const { reading: { from, refusal, wait }, response, restore } = heard
    if (wait > 0) {
      const millis = later(sending, wait)
      const again = decide(sending, heard, monotonic(clock) + millis * 1e6)
      return Effect.as(pause(turn, response, from, millis), refusal === undefined ? undefined : again)
    }
    if (refusal === undefined) return Effect.undefined
    const again = decide(sending, heard, undefined)
    // Without a time it is no limit that others would meet as well.
    if (refusal !== "limit") return Effect.succeed(again)
    return Effect.flatMap(restore(again), (again) => {
      const told = Effect.succeed(again)
      return again === undefined || again.wait === 0
        ? Effect.succeed(told)
        : Effect.as(pause(turn, response, from, again.wait), told)
    })
  })

/** Whether the request is to be sent again, and when: at the time that the answer named, or as the schedule says. */
const decide = Effect.fnUntraced(function*<E, R>(
  sending: Sending<E, R>,
  { body, reading: { refusal, retry }, response, step: known }: Heard,
  named: number | undefined
) {
  const { request, settings } = sending
  if (retry === false || !settings.retryIf(request, response, retry)) return undefined
  const step = known ?? (yield* Schedule.toStep(settings.retry))
  const clock = yield* Clock.Clock
  const next = yield* Pull.catchDone(step(clock.currentTimeMillisUnsafe(), response), () => Effect.undefined)
  if (next === undefined) return undefined
  const wait = later(sending, Duration.toMillis(next[1]))
  const notBefore = named ?? monotonic(clock) + wait * 1e6
  return { response, body, wait, notBefore, isAlone: named === undefined && refusal !== "limit", step }
})

const monotonic = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe())

/** No more than this is added, however long the wait. */
const mostJitter = 5_000

const later = ({ settings: { jitter, maxPause }, spread }: Sending<any, any>, millis: number): number => {
  // First, for an endless wait times no jitter is no number.
  const wait = Math.min(maxPause, millis)
  return Math.min(maxPause, wait + spread * Math.min(wait * jitter, mostJitter))
}

/** A throttle that is closed, or has no room for the key any more, has nobody to hold back: the answer is an answer. */
const pause = (turn: Turn, response: Response, from: string | undefined, millis: number): Effect.Effect<unknown> =>
  Effect.exit(Effect.annotateLogs(turn.pause(millis), about(response, from)))

const about = (response: Response, from?: string) => ({
  server: originOf(response.request),
  status: response.status,
  ...(from === undefined ? undefined : { from })
})

/** Timers tick in milliseconds, so what is less than one is nothing. */
const millisUntil = ({ notBefore }: Again): Effect.Effect<number> =>
  Effect.clockWith((clock) => {
    const millis = (notBefore - monotonic(clock)) / 1e6
    return Effect.succeed(millis < 1 ? 0 : millis)
  })

/** No throttle tells of this wait. */
const waitAlone = (again: Again): Effect.Effect<void> =>
  Effect.flatMap(millisUntil(again), (millis) =>
    millis === 0
      ? Effect.void
      : Observe.retryWait(
        Fiber.getCurrent()!,
        Effect.sleep(millis),
        () => ({ ...about(again.response), wait: millis })
      ))
