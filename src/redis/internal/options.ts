/**
 * The options of throttles on a store: the checks, and the keys that they make.
 */
import * as Formatter from "effect/Formatter"
import * as Options from "../../internal/options.ts"
import * as Plan from "../../internal/plan.ts"
import { isPolicy, type Policy } from "../../internal/service.ts"
import type { Client } from "./client.ts"
import type { Settings } from "./limiter.ts"
import { channelOf } from "./wakeups.ts"

type OnStoreError = "fail" | "allow" | { readonly local: number }

const isShare = (received: unknown): received is { readonly local: number } =>
  typeof received === "object" && received !== null && "local" in received && typeof received.local === "number" &&
  received.local > 0 && received.local <= 1

/** A finite duration, in nanoseconds. */
const finite = (allowed: string, minimum: number): Options.Rule<number> => ({
  allowed,
  read: (received) => {
    const millis = Options.millisOf(received)
    return millis >= minimum && millis < Infinity ? millis * 1e6 : undefined
  }
})

const rules = {
  prefix: {
    allowed: "a string without \"{\"",
    read: (received) => typeof received === "string" && !received.includes("{") ? received : undefined
  } as Options.Rule<string>,
  onStoreError: {
    allowed: "\"fail\", \"allow\" or { local: a number > 0 and ≤ 1 }",
    read: (received) => received === "fail" || received === "allow" || isShare(received) ? received : undefined
  } as Options.Rule<OnStoreError>,
  timeout: finite("a finite duration ≥ 1 millisecond", 1),
  leaseTtl: finite("a finite duration ≥ 100 milliseconds", 100),
  settleWithin: finite("a finite duration ≥ 1 millisecond", 1)
}

const lookup = Options.func<(key: any) => unknown>("a function from a key to a policy")

/** Options that have been checked, with their defaults. */
export interface StoreOptions extends Pick<Settings, "timeout" | "ttl" | "settleWithin"> {
  readonly prefix: string
  readonly onStoreError: OnStoreError
}

const withDefaults = (given: ReturnType<typeof Options.readAll<typeof rules>>): StoreOptions => {
  const { leaseTtl = 10e9, onStoreError = "fail", prefix = "throttle:", settleWithin = 600e9, timeout = 100e6 } = given
  return { prefix, onStoreError, timeout, ttl: leaseTtl, settleWithin }
}

/** Throws a RangeError for invalid options of a throttle. `where`: the function that took them. */
export const ofThrottle = (where: string, options: unknown): StoreOptions & { readonly key: string } => {
  const given = Options.readAll(where, { key: Options.text, ...rules }, options)
  return { ...withDefaults(given), key: Options.read(where, "key", Options.text, given.key) }
}

/** Throws a RangeError for invalid options of a map. */
export const ofMap = (
  where: string,
  options: unknown
): StoreOptions & { readonly lookup: (key: any) => unknown; readonly name: string } => {
  const given = Options.readAll(where, { lookup, name: Options.text, ...rules }, options)
  return {
    ...withDefaults(given),
    lookup: Options.read(where, "lookup", lookup, given.lookup),
    name: Options.read(where, "name", Options.text, given.name)
  }
}

/** The plan of a policy. Throws a RangeError for what is none, or cannot be used with these options. */
export const planOf = (
  where: string,
  policy: unknown,
  { onStoreError }: Pick<StoreOptions, "onStoreError">
): Plan.Plan => {
  const plan = Plan.make(policyOf(where, policy).data)
  if (plan.pools.length > 0 && onStoreError !== "fail") {
    throw new RangeError(
      `${where}: "onStoreError" must be "fail" where a part limits running calls (${
        Formatter.format(plan.pools[0]!.name)
      }), since one process cannot count those of the others, received ${Options.spell(onStoreError)}`
    )
  }
  return plan
}

export const policyOf = (where: string, policy: unknown): Policy<any> => {
  if (isPolicy(policy)) return policy
  throw Options.invalid(where, "policy", "a policy", policy)
}

const encoded = (text: string, special: RegExp): string => text.replace(special, (one) => encodeURIComponent(one))

/**
 * The key of a budget in the store: prefix, the throttle's name if it has one, and the key in braces. The text in the
 * first braces decides the hash slot, unless it is empty. So "{" of the name and "}" of the key are encoded, and "%"
 * stands for an empty key; ":" of the name is encoded so that no two pairs of prefix and name are the same text.
 *
 * A key that begins with a hash tag of its own, such as "{acme}:ada", stays as it is, so that keys of one tag are in one
 * slot. ":" at its end keeps it apart from the others: those end with "}", and the names of logs and leases never with ":".
 */
export const keyIn = (prefix: string, name: string | undefined, key: string): string => {
  const tagged = /^\{[^}]+\}/.test(key) ? `${key}:` : `{${key === "" ? "%" : encoded(key, /[%}]/g)}}`
  return name === undefined ? `${prefix}${tagged}` : `${prefix}${encoded(name, /[%{:]/g)}:${tagged}`
}

export const settings = (
  { prefix, settleWithin, timeout, ttl }: StoreOptions,
  client: Client,
  name: string | undefined,
  key: string,
  onStoreError: Settings["onStoreError"]
): Settings => ({
  key: keyIn(prefix, name, key),
  channel: channelOf(prefix),
  client,
  timeout,
  ttl,
  settleWithin,
  onStoreError
})
