/**
 * What stands before a handler: the limit of a key, then the limit of everybody, and the answer to those who may not pass.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as HttpEffect from "effect/http/HttpEffect"
import type { HttpServerRequest } from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import type * as Scope from "effect/Scope"
import type { Plan } from "../../internal/plan.ts"
import { partsOf, remaining } from "../../internal/remaining.ts"
import type { Limiter } from "../../internal/state.ts"
import * as Throttle from "../../Throttle.ts"
import type { ThrottleError } from "../../ThrottleError.ts"
import * as ThrottleMap from "../../ThrottleMap.ts"
import * as Fields from "./fields.ts"
import { type Problem, reducedCapacity } from "./problem.ts"
import * as Refusal from "./refusal.ts"

export interface Gate {
  readonly map: ThrottleMap.ThrottleMap<string>
  /** Whether calls of this key may hold permits, which a request does until its response is sent. */
  readonly holds: (key: string) => boolean
  readonly everybody: Limiter | undefined
  /** What everybody's limit is called. */
  readonly globalName: string
  readonly shadow: boolean
  readonly name: string
  readonly dialect: Fields.Dialect
  /** What writes the fields of a plan; undefined where there are none to write. */
  readonly writerOf: ((plan: Plan) => Fields.Writer) | undefined
  readonly onStoreError: "allow" | "refuse"
  readonly concurrencyStatus: 429 | 503
}

type Response = HttpServerResponse.HttpServerResponse

/**
 * Runs the handler when both limits let it. Refused or interrupted before it has started, it has cost nothing. To be called
 * in a step of the fiber that will run it: for a request that need not wait and holds nothing, this step is all there is.
 */
export const pass = <E, R, E2>(
  gate: Gate,
  key: string,
  cost: Throttle.Cost | undefined,
  handler: Effect.Effect<Response, E, R>,
  answer: (problem: Problem) => Effect.Effect<Response, E2>
): Effect.Effect<Response, E | E2, R | HttpServerRequest | Scope.Scope> => {
  if (ThrottleMap.startAtOnce(gate.map, key, cost, gate.everybody)) {
    announce(gate, key)
    return handler
  }
  // A request whose client has gone must not stay in line, and in front of all routes nothing can be interrupted.
  return Effect.interruptibleMask((restore) => {
    let started = false
    const run = Effect.suspend(() => {
      started = true
      announce(gate, key)
      return restore(handler)
    })
    const refused = (error: ThrottleError, by: Refusal.By) =>
      gate.shadow || (Refusal.isOfStore(error) && gate.onStoreError === "allow")
        ? undefined
        : refuse(gate, key, error, by, answer)
    const { everybody, map } = gate
    if (everybody === undefined && !gate.holds(key)) {
      // What the handler fails with is its own, also where it is a ThrottleError.
      const isRefusal = (_error: E | ThrottleError): _error is ThrottleError => !started
      return Effect.catchIf(
        cost === undefined ? map.withPermit(key)(run) : map.withPermits(key, cost)(run),
        isRefusal,
        (error): Effect.Effect<Response, E | E2, R> => refused(error, "key") ?? run
      )
    }
    const permits: Array<Throttle.Permit> = []
    const granted = (permit: Throttle.Permit): void => void permits.push(permit)
    const after = (
      taken: Effect.Effect<unknown, ThrottleError, Scope.Scope>,
      by: Refusal.By,
      next: Effect.Effect<Response, E | E2, R | Scope.Scope>
    ) => Effect.matchEffect(taken, { onFailure: (error) => refused(error, by) ?? next, onSuccess: () => next })
    // This fiber gives them back, or somebody who sends a body when this fiber is over: it can never wait for itself.
    const thenEverybody = everybody === undefined
      ? run
      : after(Throttle.take(everybody, everybody.one, true, granted), "global", run)
    // With both in shadow: what the key's would have refused would never have come as far as everybody's.
    const areInShadow = everybody?.plan.shadow === true && ThrottleMap.peek(map, key)?.plan.shadow === true
    const next = areInShadow
      ? Effect.suspend(() => permits.length === 0 ? run : thenEverybody)
      : thenEverybody
    return Effect.onExit(
      after(ThrottleMap.take(map, key, cost, granted), "key", next),
      () => started ? Effect.void : Effect.forEach(permits, (permit) => permit.cancel, { discard: true })
    )
  })
}

const refuse = <A, E>(
  gate: Gate,
  key: string,
  error: ThrottleError,
  by: Refusal.By,
  answer: (problem: Problem) => Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.suspend(() => {
    const plan = ThrottleMap.peek(gate.map, key)?.plan
    const partName = (part: string): string => {
      const i = plan === undefined ? -1 : partsOf(plan).findIndex(({ name }) => name === part)
      return i < 0 ? Fields.ascii(part) : Fields.namesOf(plan!, gate.name)[i]!
    }
    const problem = Refusal.problemOf(error, by, { ...gate, partName })
    announce(gate, key, problem)
    return answer(problem)
  })

/**
 * Has the fields added to whatever is answered in the end, with what is left then. A 503 says nothing of the client's own
 * limits: they are not what it met.
 */
const announce = (gate: Gate, key: string, problem?: Problem): void => {
  if (problem === undefined && gate.writerOf === undefined) return
  HttpEffect.appendPreResponseHandlerUnsafe(Fiber.getCurrent()!.context, (_, response) => {
    const fields = problem?.kind === reducedCapacity ? undefined : fieldsOf(gate, key, response.headers)
    const all = problem === undefined ? fields : { ...fields, ...ofRefusal(problem) }
    return Effect.succeed(all === undefined ? response : withFields(response, all))
  })
}

/** One by one: `setHeaders` takes 5 µs for two fields, `setHeader` twice 2 µs. */
const withFields = (response: Response, fields: Fields.Fields): Response => {
  for (const field of Object.keys(fields)) response = HttpServerResponse.setHeader(response, field, fields[field]!)
  return response
}

const fieldsOf = ({ dialect, map, writerOf }: Gate, key: string, headers: Fields.Fields): Fields.Fields | undefined => {
  const limiter = writerOf === undefined ? undefined : ThrottleMap.peek(map, key)
  if (limiter === undefined) return undefined
  const left = remaining(limiter)
  return left.length === 0 ? undefined : Fields.addTo(dialect, headers, writerOf!(limiter.plan)(left))
}

const ofRefusal = ({ members: { retryAfter }, retryAfterMillis }: Problem): Fields.Fields => ({
  "cache-control": "no-store",
  ...(retryAfterMillis === undefined ? undefined : { "retry-after-ms": String(retryAfterMillis) }),
  ...(retryAfter === undefined ? undefined : { "retry-after": String(retryAfter) })
})
