/**
 * Runs a handler behind two limits, that of its key and the global one, or answers instead of it.
 */
import * as Effect from "effect/Effect"
import type { HttpServerRequest } from "effect/http/HttpServerRequest"
import type { HttpServerResponse } from "effect/http/HttpServerResponse"
import type * as Scope from "effect/Scope"
import * as Admission from "../../internal/admission.ts"
import { demanding } from "../../internal/keyed/engine.ts"
import * as Maps from "../../internal/keyed/map.ts"
import * as Together from "../../internal/keyed/together.ts"
import type { Limiter } from "../../internal/limiter.ts"
import type { Plan } from "../../internal/plan.ts"
import type * as Throttle from "../../Throttle.ts"
import type { ThrottleError } from "../../ThrottleError.ts"
import { announce, type Announced } from "./announce.ts"
import * as Fields from "./fields.ts"
import { reducedCapacity } from "./problem.ts"
import * as Refusal from "./refusal.ts"

type Response = HttpServerResponse

export interface Gate<E, R> extends Announced {
  readonly name: string
  readonly shadow: boolean
  /** The global limit. */
  readonly everybody: Limiter | undefined
  readonly globalName: string
  /** The names that clients know the parts of a plan by. */
  readonly namesOf: (plan: Plan) => ReadonlyMap<string, string>
  readonly onStoreError: "allow" | "refuse"
  readonly concurrencyStatus: 429 | 503
  /** The app's own answer to a refusal; undefined for the problem document. */
  readonly onRejected: Refusal.OnRejected<E, R> | undefined
}

/**
 * Runs the handler if both limits admit it. Refused or interrupted before it has started, it has cost nothing. To be called
 * in a step of the fiber that will run it: for a request that need not wait and holds nothing, this step is all there is, and
 * so it is for one that may not wait.
 */
export const pass = <E, R, E2, R2>(
  gate: Gate<E2, R2>,
  key: string,
  cost: Throttle.Cost | undefined,
  handler: Effect.Effect<Response, E, R>
): Effect.Effect<Response, E | E2, R | R2 | HttpServerRequest | Scope.Scope> => {
  const { countIf, everybody, map } = gate
  const keyed = Maps.keyedOf(map)
  if (keyed === undefined) return wait(gate, key, cost, handler)
  const demandOf = demanding(cost)
  if (countIf === undefined && Together.startAtOnce(keyed, key, demandOf, everybody)) {
    announce(gate, key)
    return handler
  }
  const rejected = Together.rejectAtOnce(keyed, key, demandOf, everybody)
  return rejected === undefined
    ? wait(gate, key, cost, handler)
    : refuse(gate, key, rejected.summary, rejected.isOther ? "global" : "key")
}

/** The same for a request that may have to wait, that holds permits, or whose outcome counts. */
const wait = <E, R, E2, R2>(
  gate: Gate<E2, R2>,
  key: string,
  cost: Throttle.Cost | undefined,
  handler: Effect.Effect<Response, E, R>
): Effect.Effect<Response, E | E2, R | R2 | HttpServerRequest | Scope.Scope> =>
  // A request whose client has gone must not stay in line, and in front of all routes nothing can be interrupted.
  Effect.interruptibleMask((restore) => {
    const { countIf, everybody, map } = gate
    let started = false
    let own: Throttle.Permit | undefined
    const run = Effect.suspend(() => {
      started = true
      announce(gate, key, own)
      return restore(handler)
    })
    const refused = ({ reason }: ThrottleError, by: Refusal.By) =>
      gate.shadow || (Refusal.isOfStore(reason) && gate.onStoreError === "allow")
        ? undefined
        : Effect.suspend(() => refuse(gate, key, reason, by))
    if (everybody === undefined && countIf === undefined && !gate.holds(key)) {
      // What the handler fails with is its own, also where it is a ThrottleError.
      const isRefusal = (_error: E | ThrottleError): _error is ThrottleError => !started
      return Effect.catchIf(
        cost === undefined ? map.withPermit(key)(run) : map.withPermits(key, cost)(run),
        isRefusal,
        (error): Effect.Effect<Response, E | E2, R | R2> => refused(error, "key") ?? run
      )
    }
    const permits: Array<Throttle.Permit> = []
    const granted = (permit: Throttle.Permit): void => void permits.push(permit)
    const grantedOwn = (permit: Throttle.Permit): void => granted(own = permit)
    const after = (
      taken: Effect.Effect<unknown, ThrottleError, Scope.Scope>,
      by: Refusal.By,
      next: Effect.Effect<Response, E | E2, R | R2 | Scope.Scope>
    ) => Effect.matchEffect(taken, { onFailure: (error) => refused(error, by) ?? next, onSuccess: () => next })
    // This fiber gives them back, or the one that sends a body when this fiber is over: it can never wait for itself.
    const thenEverybody = everybody === undefined
      ? run
      : after(Admission.take(everybody, everybody.one, "call", granted), "global", run)
    // With both in shadow: what the key's would have refused would never have come as far as the global one.
    const areInShadow = everybody?.plan.shadow === true && Maps.peek(map, key)?.view.plan.shadow === true
    const next = areInShadow
      ? Effect.suspend(() => permits.length === 0 ? run : thenEverybody)
      : thenEverybody
    return Effect.onExit(
      after(Maps.take(map, key, cost, grantedOwn), "key", next),
      () => started ? Effect.void : Effect.forEach(permits, (permit) => permit.cancel, { discard: true })
    )
  })

/** To be called in a step of the fiber that answers the request. */
const refuse = <E, R>(
  gate: Gate<E, R>,
  key: string,
  reason: Refusal.Reason,
  by: Refusal.By
): Effect.Effect<Response, E, R> => {
  const plan = Maps.peek(gate.map, key)?.view.plan
  const names = plan && gate.namesOf(plan)
  const problem = Refusal.problemOf(reason, by, gate, (part) => names?.get(part) ?? Fields.ascii(part))
  // A 503 says nothing of the client's own limits: they are not what it met.
  if (problem.kind !== reducedCapacity) announce(gate, key)
  return gate.onRejected === undefined
    ? Effect.succeed(Refusal.responseOf(problem))
    : Refusal.ownResponseOf(gate.onRejected, key, problem)
}
