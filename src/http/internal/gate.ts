/**
 * Runs a handler behind the limits of its keys, from the narrowest to the widest, and the global one, or answers instead
 * of it.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type { HttpServerRequest } from "effect/http/HttpServerRequest"
import type { HttpServerResponse } from "effect/http/HttpServerResponse"
import type * as Scope from "effect/Scope"
import * as Admission from "../../internal/admission.ts"
import * as Calls from "../../internal/keyed/calls.ts"
import * as Maps from "../../internal/keyed/map.ts"
import * as Together from "../../internal/keyed/together.ts"
import * as Arrival from "../../internal/levels/arrival.ts"
import * as Levels from "../../internal/levels/engine.ts"
import type { Limiter } from "../../internal/limiter.ts"
import type { ThrottleError } from "../../ThrottleError.ts"
import { announce, type Announced, type Asked, type Limit } from "./announce.ts"
import * as Fields from "./fields.ts"
import { reducedCapacity } from "./problem.ts"
import * as Refusal from "./refusal.ts"
import * as Rules from "./rules.ts"

type Response = HttpServerResponse

export interface Gate<E, R> extends Announced {
  readonly shadow: boolean
  /** The limits of the keys, from the narrowest to the widest: one, or several that are all in this process. */
  readonly limits: ReadonlyArray<Limit>
  /** The global limit. */
  readonly global: Limiter | undefined
  readonly onStoreError: "allow" | "refuse"
  readonly concurrencyStatus: 429 | 503
  /** The app's own answer to a refusal; undefined for the problem document. */
  readonly onRejected: Refusal.OnRejected<E, R> | undefined
}

/** Why a limit that interrupts calls admits none. */
const drained: Refusal.Reason = { _tag: "Draining", parts: [] }

/** A request at a limit in this process. */
type Call = Asked & Together.KeyCall<string>

/** Several levels are all in this process. */
const isHere = (asked: ReadonlyArray<Asked>): asked is ReadonlyArray<Call> => asked[0]!.keyed !== undefined

/**
 * Runs the handler if all limits admit it. `asked`: the request at the limit of each key. Refused or interrupted before it
 * has started, it has cost nothing. To be called in a step of the fiber that will run it: for a request that need not wait
 * and holds nothing, this step is all there is, and so it is for one that may not wait.
 */
export const pass = <E, R, E2, R2>(
  gate: Gate<E2, R2>,
  asked: ReadonlyArray<Asked>,
  handler: Effect.Effect<Response, E, R>
): Effect.Effect<Response, E | E2, R | R2 | HttpServerRequest | Scope.Scope> => {
  const { countIf, global } = gate
  if (global !== undefined) Rules.checkUnits(global)
  if (!isHere(asked)) return wait(gate, asked, takeInTurn(gate, asked[0]!), handler)
  if (countIf === undefined && Together.startAtOnce(asked, global)) {
    announce(gate, asked)
    return handler
  }
  const rejected = Together.rejectAtOnce(asked, global)
  if (rejected !== undefined) return refuse(gate, asked, rejected.summary, rejected.level)
  const take = asked.length === 1 && global === undefined ? takeOne(asked[0]!) : takeAll(gate, asked)
  return wait(gate, asked, take, handler)
}

// ---------------------------------------------------------------------------------------------------------------------
// Permits of the limits
// ---------------------------------------------------------------------------------------------------------------------

/** What a request holds. */
interface Held {
  /** Cancels it all. */
  readonly cancel: Effect.Effect<void>
  /** Cancels what the limits of the keys granted; the global one stays charged. */
  readonly cancelOfKeys: Effect.Effect<void>
}

/**
 * Takes the permits of a request until its scope closes. Only this fiber closes it, or the one that sends a body when this
 * fiber is over, so it can never wait for itself.
 */
type Take = (onGranted: (held: Held) => void) => Effect.Effect<unknown, Levels.Rejected, Scope.Scope>

const takeOne = ({ cost, key, limit }: Asked): Take => (onGranted) =>
  Effect.mapError(
    Maps.take(limit.map, key, cost, ({ cancel }) => onGranted({ cancel, cancelOfKeys: cancel })),
    (error): Levels.Rejected => ({ error, level: 0 })
  )

/** In one step of all limits. */
const takeAll = ({ global }: Gate<any, any>, calls: ReadonlyArray<Call>): Take => (onGranted) => {
  const levels = calls.map(({ demandOf, key, keyed }): Levels.Level => ({
    name: keyed.name,
    demandOf,
    open: () => Calls.open(keyed, key, demandOf(Calls.peek(keyed, key))),
    needsRoom: () => Calls.needsRoom(keyed, key),
    arrival: () => Calls.arrival(keyed, key, demandOf)
  }))
  if (global !== undefined) {
    levels.push({
      name: global.plan.name,
      demandOf: ({ one }) => one,
      open: () => ({ limiter: global, close: () => {} }),
      needsRoom: undefined,
      arrival: () => Arrival.ofLimiter(global, global.one)
    })
  }
  return Levels.takeEach(levels, ({ cancel }, cancelAt) =>
    onGranted({
      cancel,
      cancelOfKeys: global === undefined ? cancel : Effect.forEach(calls, (_, i) => cancelAt(i), { discard: true })
    }))
}

/** Those of the key first, then the global ones: a store does not decide in one step with this process. */
const takeInTurn = ({ global, onStoreError }: Gate<any, any>, asked: Asked): Take => {
  if (global === undefined) return takeOne(asked)
  return (onGranted) => {
    let ofKey: Effect.Effect<void> = Effect.void
    const taken = takeOne(asked)((held) => {
      ofKey = held.cancel
      onGranted(held)
    })
    const takenOrAllowed = onStoreError === "refuse"
      ? taken
      : Effect.catchIf(taken, ({ error }) => Refusal.isOfStore(error.reason), () => Effect.void)
    const ofGlobal = Admission.take(
      global,
      global.one,
      "call",
      ({ cancel }) => onGranted({ cancel: Effect.andThen(ofKey, cancel), cancelOfKeys: ofKey })
    )
    return Effect.andThen(
      takenOrAllowed,
      Effect.mapError(ofGlobal, (error): Levels.Rejected => ({ error, level: 1 }))
    )
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Waits and refusals
// ---------------------------------------------------------------------------------------------------------------------

/** As `pass`, for a request that may have to wait, that holds permits, or whose outcome counts. */
const wait = <E, R, E2, R2>(
  gate: Gate<E2, R2>,
  asked: ReadonlyArray<Asked>,
  take: Take,
  handler: Effect.Effect<Response, E, R>
): Effect.Effect<Response, E | E2, R | R2 | HttpServerRequest | Scope.Scope> =>
  // A request whose client has gone must not stay in line, and in front of all routes nothing can be interrupted.
  Effect.interruptibleMask((restore) => {
    const { countIf, global } = gate
    let started = false
    let held: Held | undefined
    const run = Effect.suspend(() => {
      started = true
      announce(gate, asked, held?.cancelOfKeys)
      return restore(handler)
    })
    const refused = ({ error: { reason }, level }: Levels.Rejected): Effect.Effect<Response, E | E2, R | R2> =>
      gate.shadow || (Refusal.isOfStore(reason) && gate.onStoreError === "allow")
        ? run
        : Effect.suspend(() => refuse(gate, asked, reason, level))
    // A limit that is closed, or whose calls have no error to fail with, interrupts them. (A client that hangs up interrupts
    // this too.)
    const interrupted = <E3>(cause: Cause.Cause<E3>): Effect.Effect<Response, E2 | E3, R2> =>
      Cause.hasInterruptsOnly(cause)
        ? Effect.suspend(() => refuse(gate, asked, drained, asked.length))
        : Effect.failCause(cause)
    const { cost, key, limit: { holds, map } } = asked[0]!
    if (asked.length === 1 && global === undefined && countIf === undefined && !holds(key)) {
      // What the handler fails with is its own, also where it is a ThrottleError.
      const isRefusal = (_error: E | ThrottleError): _error is ThrottleError => !started
      return Effect.catchIf(
        cost === undefined ? map.withPermit(key)(run) : map.withPermits(key, cost)(run),
        isRefusal,
        (error) => refused({ error, level: 0 })
      ).pipe(Effect.catchCause((cause) => started ? Effect.failCause(cause) : interrupted(cause)))
    }
    const taken = take((given) => void (held = given)).pipe(
      Effect.matchEffect({ onFailure: refused, onSuccess: () => run }),
      Effect.catchCause((cause) => started ? Effect.failCause(cause) : interrupted(cause))
    )
    return Effect.onExit(taken, () => started || held === undefined ? Effect.void : held.cancel)
  })

/** `level`: which limit refused; the global one comes last. To be called in a step of the fiber that answers the request. */
const refuse = <E, R>(
  gate: Gate<E, R>,
  asked: ReadonlyArray<Asked>,
  reason: Refusal.Reason,
  level: number
): Effect.Effect<Response, E, R> => {
  const by = asked[level]
  const plan = by && Maps.peek(by.limit.map, by.key)?.view.plan
  const names = plan && by.limit.namesOf(plan)
  const problem = Refusal.problemOf(reason, {
    globalName: by === undefined ? gate.global?.plan.name : undefined,
    concurrencyStatus: gate.concurrencyStatus,
    nameOf: (part) => names?.get(part) ?? Fields.ascii(part)
  })
  // A 503 says nothing of the client's own limits: they are not what it met.
  if (problem.kind !== reducedCapacity) announce(gate, asked)
  return gate.onRejected === undefined
    ? Effect.succeed(Refusal.responseOf(problem))
    : Refusal.ownResponseOf(gate.onRejected, asked[0]!.key, problem)
}
