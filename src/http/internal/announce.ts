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
import * as Maps from "../../internal/keyed/map.ts"
import type { Plan } from "../../internal/plan.ts"
import { remaining } from "../../internal/remaining.ts"
import type * as Throttle from "../../Throttle.ts"
import type * as ThrottleMap from "../../ThrottleMap.ts"
import * as Fields from "./fields.ts"

type Response = HttpServerResponse.HttpServerResponse

export interface Announced {
  readonly map: ThrottleMap.ThrottleMap<string>
  /** Whether calls of this key may hold permits, which a request does until its response is sent. */
  readonly holds: (key: string) => boolean
  readonly dialect: Fields.Dialect
  /** What writes the fields of a plan; undefined where there are none to write. */
  readonly writerOf: ((plan: Plan) => Fields.Writer) | undefined
  /** Whether a response counts for its key; undefined where all do. */
  readonly countIf: ((response: Response, request: HttpServerRequest) => boolean) | undefined
}

/**
 * Registers what is done when the answer is sent. `permit`: what the key's limit granted, where that may still be cancelled. To
 * be called in a step of the fiber that answers the request.
 */
export const announce = (announced: Announced, key: string, permit?: Throttle.Permit): void => {
  const { context } = Fiber.getCurrent()!
  const countIf = permit && announced.countIf
  if (announced.writerOf === undefined && countIf === undefined) return
  HttpEffect.appendPreResponseHandlerUnsafe(context, (request, response) => {
    const withFields = () => Effect.succeed(withHeaders(response, fieldsOf(announced, key, response.headers)))
    if (countIf === undefined) return withFields()
    // What is held is held until a body that streams has been sent, so only then the permit can be cancelled.
    const isLater = response.body._tag === "Stream" && announced.holds(key)
    const cancel = isLater
      ? Scope.addFinalizer(Context.getUnsafe(context, Scope.Scope), permit!.cancel)
      : permit!.cancel
    return Effect.flatMap(
      isCounted(countIf, request, response),
      (counts) => counts ? withFields() : Effect.flatMap(cancel, withFields)
    )
  })
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
  { dialect, map, writerOf }: Announced,
  key: string,
  headers: Fields.Fields
): Fields.Fields | undefined => {
  const view = writerOf === undefined ? undefined : Maps.peek(map, key)
  // A policy in shadow holds back no call, so its limits are not announced.
  if (view === undefined || view.view.plan.shadow) return undefined
  const left = remaining(view.view, view.now)
  return left.length === 0 ? undefined : Fields.addTo(dialect, headers, writerOf!(view.view.plan)(left))
}

/** One by one: `setHeaders` takes 3 to 5 µs for two of them, `setHeader` twice 1 µs. */
export const withHeaders = (response: Response, headers: Fields.Fields | undefined): Response => {
  if (headers === undefined) return response
  for (const name of Object.keys(headers)) response = HttpServerResponse.setHeader(response, name, headers[name]!)
  return response
}
