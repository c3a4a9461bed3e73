/**
 * What stands before a handler: the limit of a key, then the limit of everybody, and the answer to those who may not pass.
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as HttpEffect from "effect/http/HttpEffect"
import type { HttpServerRequest } from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import type * as Scope from "effect/Scope"
import type * as Throttle from "../../Throttle.ts"
import type { ThrottleError } from "../../ThrottleError.ts"
import * as ThrottleMap from "../../ThrottleMap.ts"
import { ServiceUnavailable, TooManyRequests } from "../problems.ts"
import * as Fields from "./fields.ts"
import * as Refusal from "./refusal.ts"

export interface Gate {
  readonly map: ThrottleMap.ThrottleMap<string>
  /** Whether calls of this key may hold permits, which a request does until its response is sent. */
  readonly holds: (key: string) => boolean
  readonly everybody: Throttle.Throttle | undefined
  readonly name: string
  /** What everybody's limit is called. */
  readonly globalName: string
  readonly shadow: boolean
  readonly dialect: Fields.Dialect
  readonly onStoreError: "allow" | "refuse"
  readonly concurrencyStatus: 429 | 503
}

export type Problem = TooManyRequests | ServiceUnavailable

/** Runs the handler when both limits let it. Refused or interrupted before it has started, it has cost nothing. */
export const pass = <E, R, E2>(
  gate: Gate,
  key: string,
  cost: Throttle.Cost | undefined,
  handler: Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>,
  answer: (problem: Problem) => Effect.Effect<HttpServerResponse.HttpServerResponse, E2>
): Effect.Effect<HttpServerResponse.HttpServerResponse, E | E2, R | HttpServerRequest | Scope.Scope> =>
  Effect.suspend(() => {
    let started = false
    const run = Effect.suspend(() => {
      started = true
      announce(gate, key, {})
      return handler
    })
    const refused = (error: ThrottleError, by: Refusal.By) =>
      gate.shadow || (Refusal.isOfStore(error) && gate.onStoreError === "allow")
        ? undefined
        : refuse(gate, key, error, by, answer)
    if (gate.everybody === undefined && !gate.holds(key)) {
      // What the handler fails with is its own, also where it is a ThrottleError.
      const isRefusal = (_: E | ThrottleError): _ is ThrottleError => !started
      return Effect.catchIf(
        cost === undefined ? gate.map.withPermit(key)(run) : gate.map.withPermits(key, cost)(run),
        isRefusal,
        (error): Effect.Effect<HttpServerResponse.HttpServerResponse, E | E2, R> => refused(error, "key") ?? run
      )
    }
    const permits: Array<Throttle.Permit> = []
    const take = <A, E, R>(
      taken: Effect.Effect<Throttle.Permit, ThrottleError, Scope.Scope>,
      by: Refusal.By,
      next: Effect.Effect<A, E, R>
    ) =>
      Effect.matchEffect(taken, {
        onFailure: (error): Effect.Effect<A | HttpServerResponse.HttpServerResponse, E | E2, R> =>
          refused(error, by) ?? next,
        onSuccess: (permit) => {
          permits.push(permit)
          return next
        }
      })
    const everybody = gate.everybody === undefined ? run : take(gate.everybody.takeScoped(), "global", run)
    return Effect.onExit(
      take(gate.map.takeScoped(key, cost), "key", everybody),
      () => started ? Effect.void : Effect.forEach(permits, (permit) => permit.cancel, { discard: true })
    )
  })

const refuse = <A, E>(
  gate: Gate,
  key: string,
  error: ThrottleError,
  by: Refusal.By,
  answer: (problem: Problem) => Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.suspend(() => {
    const parts = ThrottleMap.remaining(gate.map, key) ?? []
    const names = new Map(parts.map((part) => [part.name, Fields.nameOf(part, parts, gate.name)]))
    const { retryAfter, status, violated } = Refusal.judge(error, by, gate)
    announce(gate, key, {
      "cache-control": "no-store",
      ...(retryAfter === undefined ? undefined : { "retry-after": String(retryAfter) })
    }, status)
    const members = {
      "violated-policies": violated.map((part) => names.get(part) ?? part),
      ...(retryAfter === undefined ? undefined : { retryAfter, detail: `Try again in ${retryAfter} s.` })
    }
    return answer(status === 429 ? new TooManyRequests(members) : new ServiceUnavailable(members))
  })

/**
 * Has the fields added to whatever is answered in the end, with what is left then. A 503 says nothing of the client's own
 * limits: they are not what it met.
 */
const announce = (gate: Gate, key: string, own: Fields.Fields, status = 200): void => {
  const { context } = Fiber.getCurrent()! as { readonly context: Context.Context<never> }
  HttpEffect.appendPreResponseHandlerUnsafe(context, (_, response) => {
    const parts = status === 503 ? undefined : ThrottleMap.remaining(gate.map, key)
    const fields = parts === undefined ? {} : Fields.write(gate.dialect, parts, gate.name)
    const all = { ...own, ...Fields.addTo(gate.dialect, response.headers, fields) }
    return Effect.succeed(HttpServerResponse.setHeaders(response, all))
  })
}
