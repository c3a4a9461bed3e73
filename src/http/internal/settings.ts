/**
 * A client's options, checked and with their defaults.
 */
import * as Duration from "effect/Duration"
import * as Formatter from "effect/Formatter"
import type * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schedule from "effect/Schedule"
import type * as Throttle from "../../Throttle.ts"
import type { ClientOptions, HttpErrorOptions, WeightedClientOptions } from "../clientOptions.ts"
import { dialects } from "../dialects.ts"
import type { Parser } from "../limits.ts"
import { isRepeatable, type Refusal, statuses as knownStatuses } from "../refusals.ts"
import { canBeSentAgain, originOf } from "./request.ts"
import type * as RetryBudget from "./retryBudget.ts"

export interface Settings {
  readonly key: (request: HttpClientRequest.HttpClientRequest) => string
  readonly cost: (request: HttpClientRequest.HttpClientRequest) => Throttle.Cost | undefined
  readonly retry: Schedule.Schedule<unknown, HttpClientResponse.HttpClientResponse>
  /** `wanted`: whether the server said that it wants the request again. */
  readonly retryIf: (
    request: HttpClientRequest.HttpClientRequest,
    response: HttpClientResponse.HttpClientResponse,
    wanted: boolean | undefined
  ) => boolean
  readonly statuses: Readonly<Record<number, Refusal>>
  readonly rejectAs: "ThrottleError" | "HttpClientError"
  /** Whether servers' limits are learned. */
  readonly adapt: boolean
  /** Undefined where there is no bound. */
  readonly retryBudget: RetryBudget.Options | undefined
  /** Whether `retry` is 0. */
  readonly isNeverRepeated: boolean
  readonly parsers: ReadonlyArray<Parser>
  /** Milliseconds. */
  readonly maxPause: number
  readonly jitter: number
}

const known: ReadonlySet<string> = new Set([
  "key",
  "cost",
  "retry",
  "retryBudget",
  "retryIf",
  "statuses",
  "parsers",
  "maxPause",
  "jitter",
  "rejectAs",
  "adapt"
])

export type AnyOptions = ClientOptions | WeightedClientOptions | HttpErrorOptions

export const settingsOf = (caller: string, options: AnyOptions): Settings => {
  const { cost, jitter = 0.1, key = originOf, maxPause = "1 hour", parsers = dialects, retry = 3 } = options
  const { statuses = knownStatuses } = options
  // The server may know better than a rule of ours, not than one of the program's own.
  const byDefault: Settings["retryIf"] = (request, response, wanted) =>
    isRepeatable(request, response, statuses) || (wanted === true && canBeSentAgain(request.body))
  const { retryIf = byDefault } = options
  const bad = (option: string, allowed: string, got: unknown) =>
    new RangeError(`${caller}: ${option} must be ${allowed}, got ${Formatter.format(got)}`)
  for (const option of Object.keys(options)) {
    if (known.has(option)) continue
    throw new RangeError(`${caller}: unknown option ${Formatter.format(option)}; it takes ${[...known].join(", ")}`)
  }
  if (typeof key !== "function") throw bad("key", "a function from a request to a string", key)
  if (!isCost(cost)) {
    throw bad("cost", "whole permits, a whole amount for each unit, or a function that gives one", cost)
  }
  if (typeof retryIf !== "function") throw bad("retryIf", "a function of a request and a response", retryIf)
  if (!Array.isArray(parsers) || parsers.some((parser) => typeof parser !== "function")) {
    throw bad("parsers", "an array of functions", parsers)
  }
  if (!areStatuses(statuses)) {
    throw new RangeError(
      `${caller}: "statuses" must map statuses from 400 to 599 to "limit", "overload" or "unavailable", received ` +
        Formatter.format(statuses)
    )
  }
  const { adapt = true } = options
  if (typeof adapt !== "boolean") {
    throw new RangeError(`${caller}: "adapt" must be true or false, received ${Formatter.format(adapt)}`)
  }
  const { rejectAs = "ThrottleError" } = options
  if (rejectAs !== "ThrottleError" && rejectAs !== "HttpClientError") {
    throw new RangeError(
      `${caller}: "rejectAs" must be "ThrottleError" or "HttpClientError", received ${Formatter.format(rejectAs)}`
    )
  }
  if (!Schedule.isSchedule(retry) && !(Number.isSafeInteger(retry) && retry >= 0)) {
    throw bad("retry", "a whole number of at least 0 or a schedule", retry)
  }
  if (!(jitter >= 0 && jitter <= 1)) throw bad("jitter", "a number from 0 to 1", jitter)
  const millis = typeof maxPause === "number"
    ? maxPause
    : Option.getOrElse(Option.map(Duration.fromInput(maxPause), Duration.toMillis), () => NaN)
  if (!(millis > 0 && millis < Infinity)) throw bad("maxPause", "a finite duration above 0", maxPause)
  return {
    key,
    cost: typeof cost === "function" ? cost : () => cost,
    retry: Schedule.isSchedule(retry) ? retry : Schedule.upTo(Schedule.exponential("1 second"), { times: retry }),
    retryIf,
    statuses,
    rejectAs,
    adapt,
    retryBudget: retryBudgetOf(caller, options.retryBudget),
    isNeverRepeated: retry === 0,
    parsers,
    maxPause: millis,
    jitter
  }
}

const isCost = (cost: unknown): boolean => {
  if (cost === undefined || typeof cost === "function") return true
  const amounts = Predicate.isObject(cost) && !Array.isArray(cost) ? Object.values(cost) : [cost]
  return amounts.every((amount) => Number.isSafeInteger(amount) && (amount as number) >= 0)
}

const refusals: ReadonlySet<unknown> = new Set<Refusal>(["limit", "overload", "unavailable"])

const areStatuses = (statuses: unknown): boolean =>
  Predicate.isObject(statuses) && !Array.isArray(statuses) &&
  Object.entries(statuses).every(([status, refusal]) => /^[45]\d\d$/.test(status) && refusals.has(refusal))

const retryBudgetOf = (caller: string, given: AnyOptions["retryBudget"] = {}): RetryBudget.Options | undefined => {
  if (given === false) return undefined
  const bad = (what: string, allowed: string, got: unknown) =>
    new RangeError(`${caller}: "${what}" must be ${allowed}, received ${Formatter.format(got)}`)
  if (!Predicate.isObject(given) || Array.isArray(given)) {
    throw bad("retryBudget", "false or an object with ratio and min", given)
  }
  for (const option of Object.keys(given)) {
    if (option !== "ratio" && option !== "min") throw bad("retryBudget", "an object with ratio and min", given)
  }
  const { min = 10, ratio = 0.1 }: { readonly min?: number | undefined; readonly ratio?: number | undefined } = given
  for (const [option, value] of Object.entries({ ratio, min })) {
    if (!(Number.isFinite(value) && value >= 0)) throw bad(`retryBudget.${option}`, "a finite number ≥ 0", value)
  }
  return { ratio, min }
}
