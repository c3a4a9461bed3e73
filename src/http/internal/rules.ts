/**
 * The rules for the options of a server throttle.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Formatter from "effect/Formatter"
import * as Option from "effect/Option"
import * as Plan from "../../internal/plan.ts"
import * as Throttle from "../../Throttle.ts"
import * as Fields from "./fields.ts"

const oneOf = (...words: ReadonlyArray<unknown>): readonly [string, (value: any) => boolean] => [
  words.map((word) => Formatter.format(word)).join(" or "),
  (value) => words.includes(value)
]

const isFunction = (value: unknown): boolean => typeof value === "function"

const rules: Record<string, readonly [allowed: string, holds: (value: any) => boolean]> = {
  policy: ["a policy", Throttle.isPolicy],
  lookup: ["a function from a key to a policy", (value) => isFunction(value) && !Throttle.isPolicy(value)],
  throttles: ["an effect that gives a ThrottleMap", Effect.isEffect],
  key: ["an effect that gives a string", Effect.isEffect],
  cost: [
    "a cost, or a function from a request to a cost",
    (value) => ["number", "function"].includes(typeof value) || (typeof value === "object" && value !== null)
  ],
  global: ["a policy", Throttle.isPolicy],
  countIf: ["a function from a response and its request to a boolean", isFunction],
  skip: ["a function from a request to a boolean", isFunction],
  onRejected: ["a function from a rejection to a response, or to an effect that gives one", isFunction],
  name: ["a non-empty string of printable ASCII", (value) => typeof value === "string" && /^[\x20-\x7e]+$/.test(value)],
  fields: oneOf(...Fields.dialects),
  concurrencyStatus: oneOf(429, 503),
  onStoreError: oneOf("allow", "refuse"),
  maxWait: ["a finite duration > 0", (value) => {
    const millis = Option.getOrElse(Option.map(Duration.fromInput(value), Duration.toMillis), () => NaN)
    return millis > 0 && millis <= Number.MAX_SAFE_INTEGER
  }],
  maxKeys: ["an integer ≥ 1", (value) => Number.isSafeInteger(value) && value >= 1],
  onFull: oneOf("evict", "refuse"),
  shadow: oneOf(true, false)
}

/** Options of a map that the middleware makes itself. */
const ofOwnMap = ["maxKeys", "onFull", "shadow"]

/** The options of `caller` are wrong. */
export const bad = (caller: string, what: string): RangeError => new RangeError(`${caller}: ${what}`)

export const check = (caller: string, options: Readonly<Record<string, any>>): void => {
  for (const [option, value] of Object.entries(options)) {
    if (!Object.hasOwn(rules, option)) {
      throw bad(caller, `unknown option ${Formatter.format(option)}; it takes ${Object.keys(rules).join(", ")}`)
    }
    const [allowed, holds] = rules[option]!
    if (value !== undefined && !holds(value)) {
      throw bad(caller, `"${option}" must be ${allowed}, received ${Formatter.format(value)}`)
    }
  }
  if (["policy", "lookup", "throttles"].filter((option) => options[option] !== undefined).length !== 1) {
    throw bad(caller, `exactly one of "policy", "lookup" and "throttles" must be given`)
  }
  for (const option of ofOwnMap) {
    if (options["throttles"] !== undefined && options[option] !== undefined) {
      throw bad(caller, `"${option}" goes with "policy" and "lookup"; with "throttles" the map decides`)
    }
  }
  if (options["throttles"] !== undefined && options["maxWait"] !== undefined && options["global"] === undefined) {
    throw bad(caller, `"maxWait" goes with "policy", "lookup" and "global"; with "throttles" alone the map decides`)
  }
  for (const option of ["global", "policy"]) {
    const policy = options[option]
    if (policy !== undefined) {
      checkPolicy(caller, option, policy, option === "policy" ? options["cost"] : undefined, options["maxWait"])
    }
  }
}

/** A policy has to limit requests, and to be one that a server can answer by. */
export const checkPolicy = (
  caller: string,
  option: string,
  policy: Throttle.Policy<any>,
  cost: unknown,
  maxWait: Duration.Input | undefined
): void => {
  const { units } = Plan.make(policy.data)
  // A policy of other units would cost a request nothing, and limit nobody.
  if (cost === undefined && units !== undefined && !units.has(Plan.permits)) {
    throw bad(
      caller,
      `"${option}" must count permits, since ${option === "global" ? "" : `without "cost" `}a request is one permit; ` +
        `received ${Formatter.format(policy)}`
    )
  }
  // A request that may not wait for a slot of the clock would have to arrive exactly at one, and no Retry-After could help.
  const bounds = Plan.make(bounded(policy, maxWait).data)
  const patience = bounds.maxQueue === 0 ? 0 : Math.min(bounds.maxWait, bounds.timeout) / 1e6
  const interval = longestSlot(policy.data)
  if (interval > patience) {
    throw bad(
      caller,
      `"${option}" must not align spacing to the clock unless requests may wait for its interval ("maxWait" ≥ ${
        Duration.format(Duration.millis(interval))
      }); window({ limit: 1, per, kind: "fixed" }) counts by slots; received ${Formatter.format(policy)}`
    )
  }
}

/** The longest interval of spacing that is aligned to the clock, in milliseconds; 0 for none. */
const longestSlot = (data: Throttle.PolicyData): number => {
  switch (data._tag) {
    case "Spacing":
      return data.align ? data.interval : 0
    case "Shadow":
      return longestSlot(data.policy)
    case "All":
      return Math.max(0, ...data.policies.map(longestSlot))
    default:
      return 0
  }
}

/** The policy with the bounds of a server: no request waits, or none waits for longer. */
export const bounded = (policy: Throttle.Policy<any>, maxWait: Duration.Input | undefined): Throttle.Policy<any> => {
  const { data } = policy
  if (data._tag === "Shadow") return Throttle.shadow(bounded(Throttle.fromData(data.policy), maxWait))
  if (maxWait === undefined) return Throttle.all([policy], { maxQueue: 0 })
  // Where only concurrency decides, a wait cannot be foreseen.
  return Plan.make(data).timings.length === 0
    ? Throttle.all([policy], { timeout: maxWait })
    : Throttle.all([policy], { maxWait, timeout: maxWait })
}
