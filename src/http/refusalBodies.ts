/**
 * A parser for servers that refuse by an error like others and say only in its body what it is.
 */
import type { Parser } from "./limits.ts"

/** GitHub asks for a minute where it names no time; its fields are those of another limit. */
const githubPause = 60_000

const github = /"message"\s*:\s*"[^"]*(?:secondary rate limit|abuse detection mechanism)/i

const google = /"reason"\s*:\s*"(?:rateLimitExceeded|userRateLimitExceeded|RATE_LIMIT_EXCEEDED)"/

/** The errors that AWS's own clients repeat as throttling, but those that waiting does not help. */
const awsErrors = "(?:EC2Throttled|Throttling|Throttled|RequestThrottled|RequestLimitExceeded|BandwidthLimitExceeded|" +
  "ProvisionedThroughputExceeded|TooManyRequests|SlowDown)(?:Exception)?"

const awsField = new RegExp(`^${awsErrors}(?::|$)`)

const awsBody = new RegExp(`"(?:__type|code)"\\s*:\\s*"(?:[\\w.]+#)?${awsErrors}"|<Code>${awsErrors}</Code>`, "i")

/**
 * Refusals that are no 429: GitHub's secondary limit (403; a minute where it names no time), Google's `rateLimitExceeded` and
 * `userRateLimitExceeded` (403), and AWS's `ThrottlingException` and its like (400, by `X-Amzn-ErrorType` or the body).
 *
 * **Details**
 *
 * Looks at the body of a 400 or 403 whose fields do not say that it is a refusal.
 *
 * **Example**
 *
 * ```ts
 * import { Headers } from "effect/http"
 * import { HttpThrottle } from "effect-throttle/http"
 *
 * const headers = Headers.fromInput({ "x-amzn-errortype": "ThrottlingException" })
 *
 * HttpThrottle.refusalBodies(headers, 0, { status: 400, body: undefined }) // [{ from: "x-amzn-errortype", refused: true }]
 * ```
 *
 * @category dialects
 * @since 0.2.0
 */
export const refusalBodies: Parser = (headers, _now, answer) => {
  if (answer?.status === 400) {
    if (awsField.test(headers["x-amzn-errortype"] ?? "")) return [{ from: "x-amzn-errortype", refused: true }]
    return awsBody.test(answer.body ?? "") ? [{ from: "body", refused: true }] : []
  }
  if (answer?.status !== 403) return []
  const { body = "" } = answer
  if (github.test(body)) {
    return [{ from: "body", refused: true, ...("retry-after" in headers ? undefined : { retryAfter: githubPause }) }]
  }
  return google.test(body) ? [{ from: "body", refused: true }] : []
}
