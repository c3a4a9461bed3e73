/**
 * What is asked of a request.
 */
import type * as HttpBody from "effect/http/HttpBody"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Option from "effect/Option"

/** A URL that is none has an origin of its own; the client says what is wrong with it. */
export const originOf = (request: HttpClientRequest.HttpClientRequest): string =>
  Option.match(HttpClientRequest.toUrl(request), { onNone: () => "", onSome: (url) => url.origin })

/** Whether the body is still there after it was sent. */
export const canBeSentAgain = (body: HttpBody.HttpBody): boolean =>
  body._tag === "Raw"
    ? typeof body.body === "string" || body.body instanceof ArrayBuffer || ArrayBuffer.isView(body.body)
    : body._tag !== "Stream"
