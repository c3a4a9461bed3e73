/**
 * Policies as data: what can be written down, sent and read back.
 *
 * A policy is a value of {@link PolicyData}; the rules for its options are written once, here, and hold both for the
 * constructors (which throw a `RangeError`) and for data from outside (which fails with a `SchemaError`).
 *
 * @since 0.1.0
 * @module
 */
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Formatter from "effect/Formatter"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import * as SchemaIssue from "effect/SchemaIssue"

// ---------------------------------------------------------------------------------------------------------------------
// The rules: what each option may be
// ---------------------------------------------------------------------------------------------------------------------

const allowed = {
  positive: "a whole number of at least 1",
  natural: "a whole number of at least 0",
  duration: "a finite duration longer than 0",
  boolean: "true or false",
  kind: "\"sliding\" or \"fixed\"",
  from: "\"start\" or \"end\"",
  nested: "\"die\" or \"pass\"",
  name: "a non-empty string",
  policies: "an array of policies"
} as const

const Positive = Schema.Number.check(
  Schema.makeFilter((n: number) => Number.isSafeInteger(n) && n >= 1, { expected: allowed.positive })
)

const Natural = Schema.Number.check(
  Schema.makeFilter((n: number) => Number.isSafeInteger(n) && n >= 0, { expected: allowed.natural })
)

const Name = Schema.String.check(
  Schema.makeFilter((text: string) => text.length > 0, { expected: allowed.name })
)

/** Milliseconds; written as a number of them or in words, such as "1 second". */
const Millis = Schema.Union([Schema.Number, Schema.String]).pipe(
  Schema.decodeTo(
    Schema.Number.check(
      Schema.makeFilter((n: number) => n > 0 && n <= Number.MAX_SAFE_INTEGER, { expected: allowed.duration })
    ),
    {
      decode: SchemaGetter.transformEffect((input: number | string) =>
        Option.match(Option.map(Duration.fromInput(input as Duration.Input), Duration.toMillis), {
          onNone: () => Effect.fail(new SchemaIssue.InvalidValue({ expected: allowed.duration }, input)),
          onSome: Effect.succeed
        })
      ),
      encode: SchemaGetter.transform((millis: number): number | string => millis)
    }
  )
)

const rules: Record<string, string> = {
  limit: allowed.positive,
  capacity: allowed.positive,
  refill: allowed.positive,
  burst: allowed.natural,
  maxQueue: allowed.natural,
  per: allowed.duration,
  interval: allowed.duration,
  maxWait: allowed.duration,
  timeout: allowed.duration,
  align: allowed.boolean,
  kind: allowed.kind,
  from: allowed.from,
  nested: allowed.nested,
  name: allowed.name,
  unit: allowed.name,
  policies: allowed.policies
}

// ---------------------------------------------------------------------------------------------------------------------
// The data
// ---------------------------------------------------------------------------------------------------------------------

const common = {
  name: Schema.optionalKey(Name),
  unit: Schema.optionalKey(Name),
  maxQueue: Schema.optionalKey(Natural),
  maxWait: Schema.optionalKey(Millis),
  timeout: Schema.optionalKey(Millis)
}

const { maxWait: _, ...unforeseeable } = common

/** Left out when it is the default, so that the data of a policy says only what matters to it. */
const nested = Schema.optionalKey(Schema.Literals(["die", "pass"]))

const second = Millis.pipe(Schema.withDecodingDefaultKey(Effect.succeed(1_000)))

/**
 * One start every `per / limit`, and `burst` more as extra credit.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Rate = Schema.TaggedStruct("Rate", {
  limit: Positive,
  per: second,
  burst: Natural.pipe(Schema.withDecodingDefaultKey(Effect.succeed(0))),
  ...common
})

/**
 * A bucket of `capacity` permits, refilled by `refill` every `per`.
 *
 * @category schemas
 * @since 0.1.0
 */
export const TokenBucket = Schema.TaggedStruct("TokenBucket", {
  capacity: Positive,
  refill: Positive,
  per: second,
  ...common
})

/**
 * At most `limit` starts in any `per` (sliding), or in each window of the wall clock (fixed).
 *
 * @category schemas
 * @since 0.1.0
 */
export const Window = Schema.TaggedStruct("Window", {
  limit: Positive,
  per: Millis,
  kind: Schema.Literals(["sliding", "fixed"]).pipe(Schema.withDecodingDefaultKey(Effect.succeed("sliding" as const))),
  ...common
})

/**
 * At most `limit` permits held at once.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Concurrency = Schema.TaggedStruct("Concurrency", { limit: Positive, nested, ...unforeseeable })

/**
 * At least `interval` between starts, or from an end to the next start.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Spacing = Schema.TaggedStruct("Spacing", {
  interval: Millis,
  align: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(false))),
  from: Schema.Literals(["start", "end"]).pipe(Schema.withDecodingDefaultKey(Effect.succeed("start" as const))),
  nested,
  ...common
})

/**
 * No limit.
 *
 * @category schemas
 * @since 0.1.0
 */
export const None = Schema.TaggedStruct("None", { ...common })

/**
 * Every part at one instant.
 *
 * @category models
 * @since 0.1.0
 */
export interface AllData extends Schema.Struct.Type<typeof common> {
  readonly _tag: "All"
  readonly policies: ReadonlyArray<PolicyData>
}

/**
 * {@link AllData} as it may be written.
 *
 * @category models
 * @since 0.1.0
 */
export interface AllEncoded extends Schema.Struct.Encoded<typeof common> {
  readonly _tag: "All"
  readonly policies: ReadonlyArray<PolicyEncoded>
}

/**
 * A policy that only counts what it would do.
 *
 * @category models
 * @since 0.1.0
 */
export interface ShadowData {
  readonly _tag: "Shadow"
  readonly name?: string
  readonly policy: PolicyData
}

/**
 * {@link ShadowData} as it may be written.
 *
 * @category models
 * @since 0.1.0
 */
export interface ShadowEncoded {
  readonly _tag: "Shadow"
  readonly name?: string
  readonly policy: PolicyEncoded
}

/**
 * A policy as data: plain JSON, durations in milliseconds, defaults filled in.
 *
 * @category models
 * @since 0.1.0
 */
export type PolicyData =
  | typeof Rate.Type
  | typeof TokenBucket.Type
  | typeof Window.Type
  | typeof Concurrency.Type
  | typeof Spacing.Type
  | typeof None.Type
  | AllData
  | ShadowData

/**
 * A policy as it may be written: what has a default may be left out, durations are milliseconds or words such as
 * "1 second".
 *
 * @category models
 * @since 0.1.0
 */
export type PolicyEncoded =
  | typeof Rate.Encoded
  | typeof TokenBucket.Encoded
  | typeof Window.Encoded
  | typeof Concurrency.Encoded
  | typeof Spacing.Encoded
  | typeof None.Encoded
  | AllEncoded
  | ShadowEncoded

const All = Schema.TaggedStruct("All", {
  policies: Schema.Array(Schema.suspend((): Schema.Codec<PolicyData, PolicyEncoded> => PolicyData)),
  ...common
})

const Shadow = Schema.TaggedStruct("Shadow", {
  name: Schema.optionalKey(Name),
  policy: Schema.suspend((): Schema.Codec<PolicyData, PolicyEncoded> => PolicyData)
})

const members = { Rate, TokenBucket, Window, Concurrency, Spacing, None, All, Shadow }

const someLeaf = (data: PolicyData, test: (leaf: PolicyData) => boolean): boolean =>
  data._tag === "Shadow"
    ? someLeaf(data.policy, test)
    : data._tag === "All"
    ? data.policies.some((part) => someLeaf(part, test))
    : test(data)

/** Only concurrency decides: nothing can be foreseen. */
const isUnforeseeable = (data: PolicyData): boolean =>
  someLeaf(data, (leaf) => leaf._tag === "Concurrency") &&
  !someLeaf(data, (leaf) => leaf._tag !== "Concurrency" && leaf._tag !== "None")

const unforeseen = "maxWait needs a part whose wait can be foreseen: nobody knows when a running call ends"

/** The intervals of all parts on the clock. */
const clockIntervals = (data: PolicyData): ReadonlyArray<number> =>
  data._tag === "All"
    ? data.policies.flatMap(clockIntervals)
    : data._tag === "Spacing" && data.align
    ? [data.interval]
    : []

/** Whether multiples of all intervals coincide once in 10,000 of each; if not, nothing would start for ages. */
const coincide = (intervals: ReadonlyArray<number>): boolean => {
  let common = 0
  for (const interval of intervals) {
    const step = common === 0 ? interval : common
    let times = 1
    while (Math.abs(times * step / interval - Math.round(times * step / interval)) > 1e-9) {
      if (++times > 10_000) return false
    }
    common = times * step
  }
  return intervals.every((interval) => common / interval <= 10_000)
}

/** What no single option can say. */
const sound = (data: PolicyData): string | undefined => {
  if (data._tag === "All" && data.policies.some((part) => part._tag === "Shadow")) {
    return "shadow is for a whole policy, not for a part of one: pipe the effect through both"
  }
  if (data._tag === "Shadow" && data.policy._tag === "Shadow") return "the policy is in shadow already"
  if (data._tag === "All" && data.maxWait !== undefined && isUnforeseeable(data)) return unforeseen
  if (data._tag === "All" && !coincide(clockIntervals(data))) {
    return "the slots of its parts on the clock must coincide at least once in 10,000 intervals"
  }
  if (data._tag === "Rate" && !Number.isSafeInteger(data.burst + 1)) return "burst is too large"
  return undefined
}

/**
 * The schema of {@link PolicyData}.
 *
 * Unknown options are refused when it is used through {@link decode}, `Throttle.decode` or, for JSON,
 * `Throttle.layerConfig`.
 *
 * **Example**
 *
 * ```ts
 * import { Schema } from "effect"
 * import { Policy } from "effect-throttle"
 *
 * const data = Schema.decodeUnknownSync(Policy.PolicyData)({ _tag: "Rate", limit: 30, per: "1 minute" })
 *
 * console.log(data) // { _tag: "Rate", limit: 30, per: 60000, burst: 0 }
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export const PolicyData: Schema.Codec<PolicyData, PolicyEncoded> = Schema.Union([
  Rate,
  TokenBucket,
  Window,
  Concurrency,
  Spacing,
  None,
  All,
  Shadow
]).check(Schema.makeFilter((data: PolicyData) => sound(data)))

/** Deeper than this is a loop or an attack, and would exhaust the stack. */
const deepest = 100

const tooDeep = (input: unknown): boolean => {
  let level = new Set([input])
  for (let depth = 0; depth <= deepest; depth++) {
    const parts = new Set<unknown>()
    for (const policy of level) {
      const inner: unknown = Predicate.hasProperty(policy, "policies")
        ? policy.policies
        : Predicate.hasProperty(policy, "policy")
        ? [policy.policy]
        : undefined
      if (Array.isArray(inner)) { for (const part of inner) parts.add(part) }
    }
    if (parts.size === 0) return false
    level = parts
  }
  return true
}

const decodeStrictly = Schema.decodeUnknownEffect(PolicyData, { onExcessProperty: "error" })

/**
 * Reads a policy from data that came from outside.
 *
 * Fails with a `SchemaError` where a constructor would throw: an unknown tag or option, a value that is not allowed,
 * policies nested more than 100 deep.
 *
 * @see Throttle.decode for the policy itself instead of its data
 * @category decoding
 * @since 0.1.0
 */
export const decode = (input: unknown): Effect.Effect<PolicyData, Schema.SchemaError> =>
  Effect.suspend(() =>
    tooDeep(input)
      ? Effect.fail(
        new Schema.SchemaError(
          new SchemaIssue.InvalidValue({ expected: `policies nested at most ${deepest} deep` }, input)
        )
      )
      : decodeStrictly(input)
  )

// ---------------------------------------------------------------------------------------------------------------------
// Construction in code
// ---------------------------------------------------------------------------------------------------------------------

const spell = (value: unknown): string =>
  typeof value === "string"
    ? JSON.stringify(value)
    : typeof value === "function"
    ? "a function"
    : Formatter.format(value)

const millis = (value: unknown): unknown =>
  typeof value === "number" || typeof value === "string"
    ? value
    : Option.match(Duration.fromInput(value as Duration.Input), { onNone: () => value, onSome: Duration.toMillis })

/**
 * Checks the options of a constructor and gives the policy's data.
 *
 * Throws a `RangeError` that names the policy, the option, what is allowed and what came.
 *
 * @internal
 */
export const construct = (
  tag: PolicyData["_tag"],
  options: unknown,
  parts?: { readonly policies: ReadonlyArray<PolicyData> } | { readonly policy: PolicyData }
): PolicyData => {
  const where = `Throttle.${tag[0]!.toLowerCase()}${tag.slice(1)}`
  if (!Predicate.isObject(options)) throw new RangeError(`${where}: options must be an object, got ${spell(options)}`)
  // The parts of an `all`, and the policy in shadow, were constructed, and so checked, before it.
  const { _tag: _, policies: __, policy: ___, ...fields }: Record<string, Schema.ConstraintDecoder<unknown>> =
    members[tag]
      .fields as any
  const given: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(options)) {
    if (key === "maxWait" && tag === "Concurrency") throw new RangeError(`${where}: ${unforeseen}`)
    if (!Object.hasOwn(fields, key)) {
      throw new RangeError(`${where}: unknown option ${spell(key)}; it takes ${Object.keys(fields).join(", ")}`)
    }
    if (value !== undefined) given[key] = rules[key] === allowed.duration ? millis(value) : value
  }
  const checked: Record<string, unknown> = { _tag: tag, ...parts }
  for (const [key, field] of Object.entries(fields)) {
    const one = Schema.decodeUnknownOption(Schema.Struct({ [key]: field }))(key in given ? { [key]: given[key] } : {})
    if (Option.isNone(one)) {
      throw new RangeError(`${where}: ${key} must be ${rules[key]}, got ${spell((options as any)[key])}`)
    }
    Object.assign(checked, one.value)
  }
  const data = checked as unknown as PolicyData
  if (tooDeep(data)) throw new RangeError(`${where}: policies must be nested at most ${deepest} deep`)
  const unsound = sound(data)
  if (unsound !== undefined) throw new RangeError(`${where}: ${unsound}`)
  return data
}

/**
 * The data of a policy that is given as data in code: every constructor's checks, for every part.
 *
 * @internal
 */
export const constructData = (input: unknown): PolicyData => {
  if (tooDeep(input)) throw new RangeError(`Throttle.fromData: policies must be nested at most ${deepest} deep`)
  return constructPart(input)
}

const constructPart = (input: unknown): PolicyData => {
  if (!Predicate.hasProperty(input, "_tag") || typeof input._tag !== "string" || !Object.hasOwn(members, input._tag)) {
    const got = Predicate.hasProperty(input, "_tag") ? `_tag ${spell(input._tag)}` : spell(input)
    throw new RangeError(`Throttle.fromData: _tag must be one of ${Object.keys(members).join(", ")}, got ${got}`)
  }
  const { _tag: tag, ...options } = input
  if (tag === "Shadow") {
    const { policy, ...rest } = options as { readonly policy?: unknown }
    return construct("Shadow", rest, { policy: constructPart(policy) })
  }
  if (tag !== "All") return construct(tag as PolicyData["_tag"], options)
  const { policies, ...rest } = options as { readonly policies?: unknown }
  if (!Array.isArray(policies)) {
    throw new RangeError(`Throttle.all: policies must be ${allowed.policies}, got ${spell(policies)}`)
  }
  return construct("All", rest, { policies: Array.from(policies, constructPart) })
}

// ---------------------------------------------------------------------------------------------------------------------
// Words
// ---------------------------------------------------------------------------------------------------------------------

const spans: ReadonlyArray<readonly [number, string]> = [
  [86_400_000, "day"],
  [3_600_000, "hour"],
  [60_000, "minute"],
  [1_000, "second"],
  [1, "millisecond"]
]

/** "second", "2 seconds", "90 seconds", "0.5 milliseconds": the largest unit that divides it. */
const span = (duration: number, single: string): string => {
  const [size, unit] = spans.find(([size]) => duration % size === 0) ?? [1, "millisecond"]
  const count = duration / size
  return count === 1 ? `${single}${unit}` : `${count} ${unit}s`
}

const counted = (data: { readonly unit?: string }): string =>
  data.unit === undefined || data.unit === "permits" ? "" : ` ${data.unit}`

/**
 * A policy's data in words, without its bounds.
 *
 * @internal
 */
export const rule = (data: PolicyData): string => {
  switch (data._tag) {
    case "Rate":
      return `${data.limit}${counted(data)} per ${span(data.per, "")}${data.burst > 0 ? `, burst ${data.burst}` : ""}`
    case "TokenBucket":
      return `${data.refill}${counted(data)} per ${span(data.per, "")}, bucket of ${data.capacity}`
    case "Window":
      return data.kind === "sliding"
        ? `at most ${data.limit}${counted(data)} in any ${span(data.per, "")}`
        : `at most ${data.limit}${counted(data)} in each ${span(data.per, "")} of the clock`
    case "Concurrency":
      return `at most ${data.limit}${counted(data)} at once`
    case "Spacing": {
      const gap = data.from === "start"
        ? `${span(data.interval, "1 ")} between starts`
        : `${span(data.interval, "1 ")} from an end to the next start`
      return data.align ? `${gap}, on the clock` : gap
    }
    case "None":
      return "no limit"
    case "Shadow":
      return `in shadow: ${describe(data.policy)}`
    case "All":
      return data.policies.length === 0 ? "no limit" : data.policies.map(describe).join("; ")
  }
}

/**
 * A policy's data in one sentence.
 *
 * **Example**
 *
 * ```ts
 * import { Throttle } from "effect-throttle"
 *
 * const policy = Throttle.all([Throttle.rate({ limit: 30, burst: 10 }), Throttle.concurrency({ limit: 5 })])
 *
 * console.log(Throttle.describe(policy)) // 30 per second, burst 10; at most 5 at once
 * ```
 *
 * @category words
 * @since 0.1.0
 */
export const describe = (data: PolicyData): string => {
  if (data._tag === "Shadow") return rule(data)
  const bounds = [
    data.maxQueue === undefined ? "" : data.maxQueue === 0 ? "never waiting" : `at most ${data.maxQueue} waiting`,
    "maxWait" in data && data.maxWait !== undefined ? `waiting at most ${span(data.maxWait, "1 ")}` : "",
    data.timeout === undefined ? "" : `giving up after ${span(data.timeout, "1 ")}`
  ].filter((bound) => bound !== "")
  return bounds.length === 0 ? rule(data) : `${rule(data)} (${bounds.join(", ")})`
}

/**
 * What a policy is called in logs, metrics and errors: its `name`, or else its kind.
 *
 * @internal
 */
export const nameOf = (data: PolicyData): string =>
  data.name ?? (data._tag === "Shadow" ? nameOf(data.policy) : undefined) ??
    `${data._tag[0]!.toLowerCase()}${data._tag.slice(1)}`

/** Either JSON in one value, still to be decoded, or a structure of the provider's own. */
const Setting: Schema.Codec<unknown, unknown> = Schema.Union([Schema.fromJsonString(Schema.Json), PolicyData])

/**
 * Reads a policy's data from the app's configuration.
 *
 * @internal
 */
export const config = (name: string): Effect.Effect<PolicyData, Config.ConfigError> =>
  Effect.flatMap(
    Config.schema(Setting, name),
    (setting) =>
      Effect.mapError(decode(setting), ({ issue }) =>
        new Config.ConfigError(new Schema.SchemaError(new SchemaIssue.Pointer([name], issue))))
  )
