/**
 * What is done when the answer to an admitted request, or to a refusal by its key's limit, is sent: the fields are added, and
 * a permit whose outcome does not count is cancelled.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Formatter from "effect/Formatter"
import * as HttpEffect from "effect/http/HttpEffect"
import type { HttpServerRequest } from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Scope from "effect/Scope"
import type { DemandOf } from "../../internal/keyed/calls.ts"
import type { Keyed } from "../../internal/keyed/keyed.ts"
import * as Maps from "../../internal/keyed/map.ts"
import type { Plan } from "../../internal/plan.ts"
import { remaining } from "../../internal/remaining.ts"
import type * as Throttle from "../../Throttle.ts"
import type * as ThrottleMap from "../../ThrottleMap.ts"
import * as Fields from "./fields.ts"

type Response = HttpServerResponse.HttpServerResponse

/** A limit with a budget for each key. */
export interface Limit {
  /** What clients call it. */
  readonly name: string
  readonly map: ThrottleMap.ThrottleMap<string>
  /** The state of the map; undefined for one that is not in this process. */
  readonly keyed: Keyed<string> | undefined
  /** Whether calls of this key may hold permits, which a request does until its response is sent. */
  readonly holds: (key: string) => boolean
  /** What writes the fields of a plan; undefined where there are none to write. */
  readonly writerOf: ((plan: Plan) => Fields.Writer) | undefined
  /** The names that clients know the parts of a plan by. */
  readonly namesOf: (plan: Plan) => ReadonlyMap<string, string>
}

/** A request at one of the limits. */
export interface Asked {
  readonly limit: Limit
  readonly key: string
  readonly keyed: Keyed<string> | undefined
  readonly cost: Throttle.Cost | undefined
  /** Resolves the cost for the key's policy. */
  readonly demandOf: DemandOf
}

export interface Announced {
  readonly dialect: Fields.Dialect
  /** Whether a response counts for its keys; undefined where all do. */
  readonly countIf: ((response: Response, request: HttpServerRequest) => boolean) | undefined
}

/**
 * Registers what is done when the answer is sent. `cancel`: cancels what the limits of the keys granted, where that may still
 * be done. To be called in a step of the fiber that answers the request.
 */
export const announce = (
  announced: Announced,
  asked: ReadonlyArray<Asked>,
  cancel?: Effect.Effect<void>
): void => {
  const { context } = Fiber.getCurrent()!
  const countIf = cancel && announced.countIf
  if (announced.dialect === "none" && countIf === undefined) return
  HttpEffect.appendPreResponseHandlerUnsafe(context, (request, response) => {
    // The answer is made and must be sent, also where `lookup` throws only now.
    const withFields = () => {
      try {
        return Effect.succeed(withHeaders(response, fieldsOf(announced.dialect, asked, response.headers)))
      } catch (defect) {
        return Effect.as(Effect.logError("HttpThrottle: the fields of an answer failed", defect), response)
      }
    }
    if (countIf === undefined) return withFields()
    // What is held is held until a body that streams has been sent, so only then the permit can be cancelled.
    const isLater = response.body._tag === "Stream" && asked.some(mayHold)
    const cancelled = isLater
      ? Scope.addFinalizer(Context.getUnsafe(context, Scope.Scope), cancel!)
      : cancel!
    return Effect.flatMap(
      isCounted(countIf, request, response),
      (counts) => counts ? withFields() : Effect.flatMap(cancelled, withFields)
    )
  })
}

const mayHold = ({ key, limit }: Asked): boolean => {
  try {
    return limit.holds(key)
  } catch {
    return true
  }
}

/** The answer is made and must be sent, so where `countIf` fails the request counts. */
const isCounted = (
  countIf: NonNullable<Announced["countIf"]>,
  request: HttpServerRequest,
  response: Response
): Effect.Effect<boolean> =>
  Effect.sync(() => {
    const counts: unknown = countIf(response, request)
    if (typeof counts === "boolean") return counts
    throw new RangeError(`HttpThrottle: "countIf" must return a boolean, received ${Formatter.format(counts)}`)
  }).pipe(
    Effect.catchCause((cause) =>
      Effect.as(Effect.logError("HttpThrottle: countIf failed, so the request was counted", cause), true)
    )
  )

const fieldsOf = (
  dialect: Fields.Dialect,
  asked: ReadonlyArray<Asked>,
  headers: Fields.Fields
): Fields.Fields | undefined => {
  const limits: Array<Fields.Left> = []
  for (const { key, limit: { map, writerOf } } of asked) {
    const peeked = writerOf === undefined ? undefined : Maps.peek(map, key)
    // A policy in shadow holds back no call, so its limits are not announced.
    if (peeked === undefined || peeked.view.plan.shadow) continue
    const left = remaining(peeked.view, peeked.now)
    if (left.length > 0) limits.push({ writer: writerOf!(peeked.view.plan), left })
  }
  const [first] = limits
  if (first === undefined) return undefined
  return Fields.addTo(
    dialect,
    headers,
    limits.length === 1 ? first.writer(first.left) : Fields.ofAll(dialect, limits)
  )
}

/** One by one: `setHeaders` takes 3 to 5 µs for two of them, `setHeader` twice 1 µs. */
export const withHeaders = (response: Response, headers: Fields.Fields | undefined): Response => {
  if (headers === undefined) return response
  for (const name of Object.keys(headers)) response = HttpServerResponse.setHeader(response, name, headers[name]!)
  return response
}
