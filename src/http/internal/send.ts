/**
 * Sends a throttled request: attempts, what their answers mean, and retries.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as HttpClientError from "effect/http/HttpClientError"
import type * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import type { ThrottleError } from "../../ThrottleError.ts"
import { metrics } from "../clientStatistics.ts"
import { learn } from "./adapt.ts"
import * as Body from "./body.ts"
import { type Decision, holdBack } from "./decide.ts"
import { observe } from "./freshness.ts"
import * as Hold from "./hold.ts"
import * as Memory from "./memory.ts"
import * as Pacer from "./pacer.ts"
import { readAnswer } from "./reading.ts"
import * as RetryBudget from "./retryBudget.ts"
import {
  type Again,
  type Attempt,
  millisUntil,
  monotonic,
  type Received,
  type Response,
  type Sending,
  waitAlone
} from "./sending.ts"
import { nameOf, type Turn } from "./source.ts"

/** Waits for its turn, sends the request, and sends it again as the answer and the settings say. */
export const send = <E, R>(
  sending: Sending<E, R>
): Effect.Effect<Response, E | ThrottleError | HttpClientError.HttpClientError, R> => {
  const { key, memory, request, settings: { rejectAs, retryBudget } } = sending
  return Effect.onExitPrimitive(
    Effect.suspend(() => {
      const now = Pacer.timeOf(Fiber.getCurrent()!)
      const remembered = sending.remembered = Memory.enter(memory, key, now)
      if (remembered !== undefined && retryBudget !== undefined) {
        RetryBudget.deposit(remembered.budget, retryBudget, now)
      }
      const first = attemptInTime(sending, undefined)
      return Effect.flatMap(
        rejectAs === "ThrottleError" ? first : asHttpErrors(request, first),
        (first) => first.again === undefined ? first.exit : sendAgain(sending, first)
      )
    }),
    () => {
      if (sending.remembered !== undefined) Memory.leave(memory, sending.remembered, Pacer.timeOf(Fiber.getCurrent()!))
      return undefined
    }
  )
}

/** Maps rejections to an `HttpClientError`. The public type of the client says which of the two errors it is. */
const asHttpErrors = <A, R>(
  request: HttpClientRequest.HttpClientRequest,
  self: Effect.Effect<A, ThrottleError, R>
): Effect.Effect<A, any, R> =>
  Effect.mapError(self, (cause) =>
    new HttpClientError.HttpClientError({
      reason: new HttpClientError.TransportError({ request, cause, description: cause.message })
    }))

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
        if (sending.remembered !== undefined) sending.remembered.counters.repeated++
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

/** Waits until what was learned allows it, then for the policy. With a policy in shadow nothing is held back or learned. */
const attempt = <E, R>(
  sending: Sending<E, R>,
  before: Again | undefined
): Effect.Effect<Attempt<E> | undefined, ThrottleError, R> => {
  const { gate, key, remembered, request, settings } = sending
  const cost = settings.cost(request)
  const pacer = remembered?.pacer
  const plan = pacer && gate.planOf(key)
  if (pacer === undefined || plan?.shadow === true) {
    return ask(sending, gate.take(key, cost), before, undefined) as Effect.Effect<
      Attempt<E> | undefined,
      ThrottleError,
      R
    >
  }
  const asking = { cost: cost ?? 1, plan, estimateWait: () => gate.estimateWait(key, cost) }
  return Hold.through(pacer, asking, before?.place, (passage) => {
    const taken = Hold.within(passage, asking, pacer, gate.take(key, cost))
    return ask(sending, taken, before, passage)
  })
}

/**
 * Waits for the policy, sends, and acts on the answer before the permits are released: waiting requests must not start
 * between the answer and the pause that it asks for. Fails where the throttle refuses. A turn that comes before its time is
 * given back, and there is no attempt.
 */
const ask = <E, R>(
  sending: Sending<E, R>,
  taken: Effect.Effect<Turn, ThrottleError, Scope.Scope>,
  before: Again | undefined,
  passage: Pacer.Passage | undefined
): Effect.Effect<Attempt<E> | undefined | typeof Hold.notYet, ThrottleError, R> => {
  const { effect, isScoped, remembered } = sending
  const sent = (turn: Turn) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Effect.exit(restore(effect)), (exit): Effect.Effect<Attempt<E>> => {
        const response = responseOf(exit)
        const received = response && receive(sending, turn, response, passage, before, restore)
        return received === undefined
          ? Effect.succeed({ exit, again: undefined })
          : Effect.map(received, (again) => ({ exit, again }))
      })
    )
  const begin = (turn: Turn) =>
    Effect.suspend((): Effect.Effect<Attempt<E> | typeof Hold.notYet, never, R> =>
      passage === undefined || Pacer.start(remembered!.pacer!, passage)
        ? sent(turn)
        : Effect.as(turn.cancel, Hold.notYet)
    )
  return Effect.acquireUseRelease(
    isScoped ? Effect.flatMap(Scope.Scope, Scope.fork) : Scope.make(),
    (scope) =>
      Effect.flatMap(
        Scope.provide(taken, scope),
        (turn) =>
          before === undefined
            ? begin(turn)
            : Effect.flatMap(
              millisUntil(before),
              (millis) => millis > 0 ? Effect.as(turn.cancel, undefined) : begin(turn)
            )
      ),
    (scope, exit) => isScoped && isUnderWay(exit) ? Effect.void : Scope.close(scope, exit)
  ) as Effect.Effect<Attempt<E> | undefined | typeof Hold.notYet, ThrottleError, R>
}

/** Whether there is an answer whose body the permits are for. A redirect's body is not read. */
const isUnderWay = (exit: Exit.Exit<Attempt<unknown> | undefined | typeof Hold.notYet, unknown>): boolean =>
  Exit.isSuccess(exit) && typeof exit.value === "object" && exit.value.again === undefined &&
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
 * Reads the answer, with as much of its body as that takes, and does what it says; undefined where there is nothing to do. In
 * the step in which the answer comes, since most say nothing.
 */
const receive = <E, R>(
  sending: Sending<E, R>,
  turn: Turn,
  response: Response,
  passage: Pacer.Passage | undefined,
  before: Again | undefined,
  restore: Received["restore"]
): Effect.Effect<Decision | undefined> | undefined => {
  const { headers, status } = response
  const { remembered, settings } = sending
  const clock = Fiber.getCurrent()!.getRef(Clock.Clock)
  const [now, at] = [clock.currentTimeMillisUnsafe(), monotonic(clock) / 1e6]
  const known = remembered && { known: remembered.clock, at }
  const reading = readAnswer({ status, headers, body: undefined }, settings, now, known)
  const { date, refusal } = reading
  if (remembered !== undefined && date !== undefined) {
    remembered.clock = observe(remembered.clock, { date, now, at, isRefusal: refusal === "limit" })
  }
  if (!reading.needsBody) {
    return respond(sending, { response, reading, body: undefined, turn, passage, before, restore })
  }
  const body = Body.make(response)
  // Of a response that the caller does not read, nothing else would close a body that was read in part.
  const closing = sending.isScoped ? closeWithScope(body) : Effect.void
  return Effect.flatMap(Effect.andThen(closing, restore(Body.lookAt(body))), (text) => {
    const whole = text === undefined ? reading : readAnswer({ status, headers, body: text }, settings, now, known)
    const received = { response, reading: whole, body, turn, passage, before, restore }
    return respond(sending, received) ?? Effect.undefined
  })
}

const closeWithScope = (body: Body.Body): Effect.Effect<void> =>
  Effect.withFiber(({ context }) =>
    Scope.addFinalizer(Context.getUnsafe(context as Context.Context<Scope.Scope>, Scope.Scope), body.giveUp)
  )

const respond = <E, R>(sending: Sending<E, R>, received: Received): Effect.Effect<Decision | undefined> | undefined => {
  const { passage, reading } = received
  const { remembered } = sending
  const pacer = remembered?.pacer
  const decision = pacer === undefined || passage === undefined
    ? holdBack(sending, received)
    : learn(sending, pacer, passage, received)
  if (reading.refusal === undefined || decision === undefined) return decision
  if (remembered !== undefined) remembered.counters.refused++
  const series = { throttle: nameOf(sending.gate, sending.key), status: `${received.response.status}` }
  return Effect.andThen(Metric.update(Metric.withAttributes(metrics.refused, series), 1), decision)
}
