/**
 * The rules for the options of a server throttle.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Formatter from "effect/Formatter"
import * as Predicate from "effect/Predicate"
import type { Limiter } from "../../internal/limiter.ts"
import * as Options from "../../internal/options.ts"
import * as Plan from "../../internal/plan.ts"
import { limiterOf } from "../../internal/throttle.ts"
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
  global: Options.rule(
    "a policy, a throttle, or an effect that returns a throttle",
    (value) =>
      Throttle.isPolicy(value) || Effect.isEffect(value) ||
      (Predicate.isObject(value) && Predicate.hasProperty(value, "withPermit"))
  ),
  levels: Options.array,
  setCaller: Options.rule(
    "a boolean, or a function from a key to a caller",
    (value) => typeof value === "boolean" || isFunction(value)
  ),
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

const { cost, key, lookup, maxKeys, name, onFull, policy, throttles } = rules

const levelRules = { key, policy, lookup, throttles, cost, name, maxKeys, onFull }

/** Options of a map that the middleware makes itself. */
const ofOwnMap = ["maxKeys", "onFull", "shadow"]

/** The options of `caller` are wrong. */
export const bad = (caller: string, what: string): RangeError => new RangeError(`${caller}: ${what}`)

/** What errors of a level's options begin with; -1 for the limit of the client's key, which is no level. */
export const ofLevel = (caller: string, level: number): string => level < 0 ? caller : `${caller}, levels[${level}]`

type Given = Readonly<Record<string, any>>

export const check = (caller: string, options: Given): void => {
  const { levels = [] } = Options.readAll(caller, rules, options) as { readonly levels?: ReadonlyArray<Given> }
  const { global, maxWait } = options
  checkLimit(caller, options, maxWait)
  levels.forEach((level, i) => {
    const where = ofLevel(caller, i)
    Options.readAll(where, levelRules, level)
    Options.read(where, "key", key, level["key"])
    checkLimit(where, level, maxWait)
  })
  checkNames(caller, [options["name"] ?? "default", ...levels.map(({ name }, i) => name ?? nameOfLevel(i))])
  if (options["shadow"] === true && levels.some(({ throttles }) => throttles !== undefined)) {
    throw bad(caller, `"shadow" needs "policy" or "lookup" at each level; a map of "throttles" decides itself`)
  }
  const mayWaitHere = Throttle.isPolicy(global) || levels.some(({ throttles }) => throttles === undefined)
  if (options["throttles"] !== undefined && maxWait !== undefined && !mayWaitHere) {
    throw bad(caller, `"maxWait" goes with "policy", "lookup" and "global"; with "throttles" alone the map decides`)
  }
  if (Throttle.isPolicy(global)) checkPolicy(caller, "global", global, undefined, maxWait)
  else if (global !== undefined && options["shadow"] === true) {
    throw bad(caller, `"shadow" needs a policy as "global"; a throttle decides itself`)
  }
}

/** The limiter of a throttle that all requests pass. */
export const limiterOfGlobal = (caller: string, throttle: Throttle.Throttle): Limiter => {
  const limiter = Predicate.isObject(throttle) ? limiterOf(throttle) : undefined
  if (limiter === undefined) {
    throw bad(caller, `"global" must be a policy, a Service class, or a throttle of Throttle.make in this process`)
  }
  checkUnits(limiter, caller)
  return limiter
}

/** Of other units a request would cost nothing. An update of a throttle may change them. */
export const checkUnits = ({ plan: { description, units } }: Limiter, caller = "HttpThrottle"): void => {
  if (units === undefined || units.has(Plan.permits)) return
  throw bad(caller, `"global" must count permits, since a request is one permit; received ${description}`)
}

/** The name of a level that is given none. The limit of the client's key is the first one. */
export const nameOfLevel = (level: number): string => `level ${level + 2}`

/** Clients tell limits apart by their names. */
const checkNames = (caller: string, names: ReadonlyArray<string>): void => {
  const twice = names.find((name, i) => names.indexOf(name) < i)
  if (twice !== undefined) {
    throw bad(caller, `each limit must have another "name", received ${Formatter.format(twice)} twice`)
  }
}

/** Where the policies of a limit come from. */
const checkLimit = (caller: string, options: Given, maxWait: Duration.Input | undefined): void => {
  if (["policy", "lookup", "throttles"].filter((option) => options[option] !== undefined).length !== 1) {
    throw bad(caller, `exactly one of "policy", "lookup" and "throttles" must be given`)
  }
  for (const option of ofOwnMap) {
    if (options["throttles"] !== undefined && options[option] !== undefined) {
      throw bad(caller, `"${option}" goes with "policy" and "lookup"; with "throttles" the map decides`)
    }
  }
  const { cost, policy } = options
  if (policy !== undefined) checkPolicy(caller, "policy", policy, cost, maxWait)
}

/** All levels are charged in one step, so each must have keys of its own, in this process. */
export const checkMaps = (caller: string, maps: ReadonlyArray<object | undefined>): void => {
  if (maps.includes(undefined)) {
    throw bad(caller, `with "levels" each "throttles" must be a map of this process, since all are charged in one step`)
  }
  if (new Set(maps).size < maps.length) {
    throw bad(caller, `each of the "levels" must have another map`)
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
  // A policy of other units would cost a request nothing, and limit none.
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
  // The order is that of the whole, not of its only part.
  const { ageing, order = "arrival", ...unordered } = data
  const part = [Throttle.fromData(unordered)]
  if (maxWait === undefined) return Throttle.all(part, { maxQueue: 0 })
  if (order !== "arrival") return Throttle.all(part, { order, ageing, timeout: maxWait })
  // Where only concurrency decides, a wait cannot be foreseen.
  return Plan.make(data).meters.length === 0
    ? Throttle.all(part, { timeout: maxWait })
    : Throttle.all(part, { maxWait, timeout: maxWait })
}
