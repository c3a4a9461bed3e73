/**
 * The rules for the options of a server throttle.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Formatter from "effect/Formatter"
import * as Options from "../../internal/options.ts"
import * as Plan from "../../internal/plan.ts"
import * as Throttle from "../../Throttle.ts"
import * as Fields from "./fields.ts"

const isFunction = (value: unknown): boolean => typeof value === "function"

const rules = {
  policy: Options.rule("a policy", Throttle.isPolicy),
  lookup: Options.rule("a function from a key to a policy", (value) => isFunction(value) && !Throttle.isPolicy(value)),
  throttles: Options.rule("an effect that returns a ThrottleMap", Effect.isEffect),
  key: Options.rule("an effect that returns a string", Effect.isEffect),
  cost: Options.rule(
    "a cost, or a function from a request to a cost",
    (value) => ["number", "function"].includes(typeof value) || (typeof value === "object" && value !== null)
  ),
  global: Options.rule("a policy", Throttle.isPolicy),
  countIf: Options.func("a function from a response and its request to a boolean"),
  skip: Options.func("a function from a request to a boolean"),
  onRejected: Options.func("a function from a rejection to a response, or to an effect that returns one"),
  name: Options.rule(
    "a non-empty string of printable ASCII",
    (value) => typeof value === "string" && /^[\x20-\x7e]+$/.test(value)
  ),
  fields: Options.oneOf(...Fields.dialects),
  concurrencyStatus: Options.oneOf(429, 503),
  onStoreError: Options.oneOf("allow", "refuse"),
  maxWait: Options.finiteDuration,
  maxKeys: Options.integer(1),
  onFull: Options.oneOf("evict", "refuse"),
  shadow: Options.boolean
}

/** Options of a map that the middleware makes itself. */
const ofOwnMap = ["maxKeys", "onFull", "shadow"]

/** The options of `caller` are wrong. */
export const bad = (caller: string, what: string): RangeError => new RangeError(`${caller}: ${what}`)

export const check = (caller: string, options: Readonly<Record<string, any>>): void => {
  Options.readAll(caller, rules, options)
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
  return Plan.make(data).meters.length === 0
    ? Throttle.all([policy], { timeout: maxWait })
    : Throttle.all([policy], { maxWait, timeout: maxWait })
}
