/**
 * A client's options, checked and with their defaults.
 */
import type * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Predicate from "effect/Predicate"
import * as Schedule from "effect/Schedule"
import * as Options from "../../internal/options.ts"
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

export type AnyOptions = ClientOptions | WeightedClientOptions | HttpErrorOptions

const isCost = (cost: unknown): boolean => {
  if (typeof cost === "function") return true
  const amounts = Predicate.isObject(cost) && !Array.isArray(cost) ? Object.values(cost) : [cost]
  return amounts.every((amount) => Number.isSafeInteger(amount) && (amount as number) >= 0)
}

const refusals: ReadonlySet<unknown> = new Set<Refusal>(["limit", "overload", "unavailable"])

const areStatuses = (statuses: unknown): boolean =>
  Predicate.isObject(statuses) && !Array.isArray(statuses) &&
  Object.entries(statuses).every(([status, refusal]) => /^[45]\d\d$/.test(status) && refusals.has(refusal))

const rules = {
  key: Options.func<Settings["key"]>("a function from a request to a string"),
  cost: Options.rule<AnyOptions["cost"]>(
    "an integer ≥ 0, such an amount for each unit, or a function from a request to a cost",
    isCost
  ),
  retry: Options.rule<NonNullable<AnyOptions["retry"]>>(
    "an integer ≥ 0 or a schedule",
    (retry) => Schedule.isSchedule(retry) || (Number.isSafeInteger(retry) && (retry as number) >= 0)
  ),
  retryBudget: Options.rule<NonNullable<AnyOptions["retryBudget"]>>(
    "false or an object of ratio and min",
    (budget) => budget === false || (Predicate.isObject(budget) && !Array.isArray(budget))
  ),
  retryIf: Options.func<Settings["retryIf"]>("a function from a request and a response to a boolean"),
  statuses: Options.rule<Settings["statuses"]>(
    `an object from statuses from 400 to 599 to "limit", "overload" or "unavailable"`,
    areStatuses
  ),
  parsers: Options.rule<Settings["parsers"]>(
    "an array of functions",
    (parsers) => Array.isArray(parsers) && parsers.every((parser) => typeof parser === "function")
  ),
  maxPause: Options.finiteDuration,
  jitter: Options.rule<number>(
    "a number from 0 to 1",
    (jitter) => typeof jitter === "number" && jitter >= 0 && jitter <= 1
  ),
  rejectAs: Options.oneOf("ThrottleError", "HttpClientError"),
  adapt: Options.boolean
}

const retryBudgetRules = { ratio: Options.number(0), min: Options.number(0) }

/** Throws a RangeError for invalid options. */
export const settingsOf = (caller: string, options: AnyOptions): Settings => {
  const {
    adapt = true,
    cost,
    jitter = 0.1,
    key = originOf,
    maxPause = 3_600_000,
    parsers = dialects,
    rejectAs = "ThrottleError",
    retry = 3,
    retryBudget = {},
    statuses = knownStatuses,
    ...given
  } = Options.readAll(caller, rules, options)
  // What the server states overrules this default, not a rule of the program.
  const byDefault: Settings["retryIf"] = (request, response, wanted) =>
    isRepeatable(request, response, statuses) || (wanted === true && canBeSentAgain(request.body))
  return {
    key,
    cost: typeof cost === "function" ? cost : () => cost,
    retry: Schedule.isSchedule(retry)
      ? retry as Settings["retry"]
      : Schedule.upTo(Schedule.exponential("1 second"), { times: retry }),
    retryIf: given.retryIf ?? byDefault,
    statuses,
    rejectAs,
    adapt,
    retryBudget: retryBudget === false
      ? undefined
      : { ratio: 0.1, min: 10, ...Options.readAll(`${caller}, retryBudget`, retryBudgetRules, retryBudget) },
    isNeverRepeated: retry === 0,
    parsers,
    maxPause,
    jitter
  }
}
