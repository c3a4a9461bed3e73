/**
 * Makes the data of a policy from options in code. Throws a `RangeError` where decoding fails with a `SchemaError`.
 */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Options from "../options.ts"
import {
  allowed,
  allowedFor,
  deepest,
  fieldsOf,
  inconsistency,
  maxWaitNeedsTime,
  members,
  type PolicyData,
  tooDeep
} from "./schema.ts"

const millis = (value: unknown): unknown =>
  typeof value === "number" || typeof value === "string"
    ? value
    : Option.match(Duration.fromInput(value as Duration.Input), { onNone: () => value, onSome: Duration.toMillis })

/**
 * Makes a policy's data from the options of its constructor.
 *
 * Throws a `RangeError` that names the constructor, the option, the allowed values and the received one.
 */
export const construct = (
  tag: PolicyData["_tag"],
  options: unknown,
  parts?: { readonly policies: ReadonlyArray<PolicyData> } | { readonly policy: PolicyData }
): PolicyData => {
  const where = `Throttle.${tag[0]!.toLowerCase()}${tag.slice(1)}`
  if (!Predicate.isObject(options)) {
    throw new RangeError(`${where}: options must be an object, received ${Options.spell(options)}`)
  }
  // `policies` and `policy` were constructed, and so checked, before.
  const { _tag: _, policies: __, policy: ___, ...fields } = fieldsOf(tag, options)
  const given: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(options)) {
    if (key === "maxWait" && tag === "Concurrency") throw new RangeError(`${where}: ${maxWaitNeedsTime}`)
    if (!Object.hasOwn(fields, key)) {
      throw Options.unknown(where, key, Object.keys(fields))
    }
    if (value !== undefined) given[key] = allowedFor(key, options) === allowed.duration ? millis(value) : value
  }
  const checked: Record<string, unknown> = { _tag: tag, ...parts }
  for (const [key, field] of Object.entries(fields)) {
    const one = Schema.decodeUnknownOption(Schema.Struct({ [key]: field }))(key in given ? { [key]: given[key] } : {})
    if (Option.isNone(one)) {
      throw Options.invalid(where, key, allowedFor(key, options), (options as any)[key])
    }
    Object.assign(checked, one.value)
  }
  const data = checked as unknown as PolicyData
  if (tooDeep(data)) throw new RangeError(`${where}: policies must be nested at most ${deepest} deep`)
  const error = inconsistency(data)
  if (error !== undefined) throw new RangeError(`${where}: ${error}`)
  return data
}

/**
 * Makes a policy's data from data in code, with the checks of the constructor for every part.
 */
export const constructData = (input: unknown): PolicyData => {
  if (tooDeep(input)) throw new RangeError(`Throttle.fromData: policies must be nested at most ${deepest} deep`)
  return constructPart(input)
}

const constructPart = (input: unknown): PolicyData => {
  if (!Predicate.hasProperty(input, "_tag") || typeof input._tag !== "string" || !Object.hasOwn(members, input._tag)) {
    const received = Predicate.hasProperty(input, "_tag") ? input._tag : input
    throw Options.invalid("Throttle.fromData", "_tag", `one of ${Object.keys(members).join(", ")}`, received)
  }
  const { _tag: tag, ...options } = input
  if (tag === "Shadow") {
    const { policy, ...rest } = options as { readonly policy?: unknown }
    return construct("Shadow", rest, { policy: constructPart(policy) })
  }
  if (tag !== "All") return construct(tag as PolicyData["_tag"], options)
  const { policies, ...rest } = options as { readonly policies?: unknown }
  if (!Array.isArray(policies)) {
    throw Options.invalid("Throttle.all", "policies", allowed.policies, policies)
  }
  return construct("All", rest, { policies: Array.from(policies, constructPart) })
}
