/**
 * Options of the throttled client.
 */
import type * as Duration from "effect/Duration"
import type * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import type * as Schedule from "effect/Schedule"
import type * as Throttle from "../Throttle.ts"
import type { Parser } from "./limits.ts"
import type { Refusal } from "./refusals.ts"

/**
 * How many requests of a key may be sent again.
 *
 * @see {@link ClientOptions} for where it is given
 * @category options
 * @since 0.2.0
 */
export interface RetryBudget {
  /** Retries that each request allows, within 10 seconds of it. A number of at least 0. Default: 0.1. */
  readonly ratio?: number | undefined
  /** Retries a second that are allowed whatever the load. A number of at least 0. Default: 10. */
  readonly min?: number | undefined
}

/**
 * Options of `HttpThrottle.client`.
 *
 * @category options
 * @since 0.1.0
 */
export interface ClientOptions {
  /** What requests share a throttle by. One throttle for all does not look at it. Default: the origin of the URL. */
  readonly key?: ((request: HttpClientRequest.HttpClientRequest) => string) | undefined
  /** See {@link WeightedClientOptions}. Default: one permit. */
  readonly cost?: undefined
  /**
   * How often a request that was refused is sent again: a number, or a schedule, which is asked with the answer. The
   * delays of the schedule are waited where the answer names no time; with a number they are 1, 2, 4 … seconds. 0 for
   * never. A retry is queued, so a policy with `maxQueue: 0`, or a `maxWait` below the pause, lets none wait: there the
   * refusal is the answer. With `adapt`, of requests that were under way at one refusal only one counts it. Default: 3.
   */
  readonly retry?: number | Schedule.Schedule<unknown, HttpClientResponse.HttpClientResponse> | undefined
  /**
   * How much load retries may add to a key: each request allows `ratio` of a retry within the next 10 seconds, and `min`
   * retries a second are allowed besides. A refused request beyond that is answered as it came. Only retries that `retry`
   * counts are counted here. `false` for no bound. Default: `{ ratio: 0.1, min: 10 }`.
   */
  readonly retryBudget?: RetryBudget | false | undefined
  /**
   * Whether this request may be sent again after this answer. A server's `should-retry: false` stands whatever this says.
   * Default: `HttpThrottle.isRepeatable`, and where the server says `should-retry: true`, whatever can be sent again.
   */
  readonly retryIf?:
    | ((request: HttpClientRequest.HttpClientRequest, response: HttpClientResponse.HttpClientResponse) => boolean)
    | undefined
  /** Which statuses refuse a request, and how, instead of the default. Default: `HttpThrottle.statuses`. */
  readonly statuses?: Readonly<Record<number, Refusal>> | undefined
  /** The dialects to read. One that throws is ignored. Default: `HttpThrottle.dialects`. */
  readonly parsers?: ReadonlyArray<Parser> | undefined
  /** No answer makes anybody wait longer, jitter included. A finite duration above 0. Default: 1 hour. */
  readonly maxPause?: Duration.Input | undefined
  /**
   * Up to this fraction is added to what is waited, 5 seconds at most, so that clients do not all come back at once. From
   * 0 to 1. Default: 0.1.
   */
  readonly jitter?: number | undefined
  /**
   * Whether the client learns the limit of each key's server from refusals and fields, and starts requests no faster than
   * that; requests wait for it before they ask the policy, within the policy's bounds. With false it pauses as long as an
   * answer says, and until the reset after one that leaves nothing. Default: true.
   */
  readonly adapt?: boolean | undefined
  /** See {@link HttpErrorOptions}. Default: "ThrottleError". */
  readonly rejectAs?: "ThrottleError" | undefined
}

/**
 * Options of a client whose requests cost more than one permit, or amounts of several units.
 *
 * @category options
 * @since 0.1.0
 */
export interface WeightedClientOptions extends Omit<ClientOptions, "cost"> {
  /** What a request costs, each attempt again. */
  readonly cost: Throttle.Cost | ((request: HttpClientRequest.HttpClientRequest) => Throttle.Cost)
}

/**
 * Options of a client that fails with no other error than an `HttpClientError`, also where its policy has bounds or its
 * requests a cost, so that it can be an app's `HttpClient`.
 *
 * **Details**
 *
 * A request that the policy rejects fails with an `HttpClientError` whose `reason` is a `TransportError`, since it has not
 * been sent, and whose `cause` is the `ThrottleError`. `HttpClient.retryTransient` repeats such errors.
 *
 * @category options
 * @since 0.2.0
 */
export interface HttpErrorOptions extends Omit<ClientOptions, "cost" | "rejectAs"> {
  /** Which error a request fails with that the policy rejects. */
  readonly rejectAs: "HttpClientError"
  /** What a request costs, each attempt again. Default: one permit. */
  readonly cost?: WeightedClientOptions["cost"] | undefined
}
