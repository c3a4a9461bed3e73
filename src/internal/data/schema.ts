/**
 * The schemas of policies as data, and the rules for each option. `Policy.ts` exports them.
 */
import * as Arr from "effect/Array"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import * as SchemaIssue from "effect/SchemaIssue"
import * as Options from "../options.ts"
import * as Zone from "../part/zone.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Rules for options
// ---------------------------------------------------------------------------------------------------------------------

export const allowed = {
  positive: Options.integer(1).allowed,
  natural: Options.integer(0).allowed,
  duration: Options.finiteDuration.allowed,
  boolean: Options.boolean.allowed,
  kind: "\"sliding\", \"fixed\" or \"calendar\"",
  calendarUnit: "\"day\", \"week\" or \"month\"",
  zone: "the name of a time zone, such as \"America/Los_Angeles\"",
  from: "\"start\" or \"end\"",
  onReentry: "\"die\" or \"bypass\"",
  order: "\"arrival\", \"priority\" or \"fair\"",
  name: Options.text.allowed,
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

/** A duration in milliseconds. Its encoded form is a number of milliseconds or a text such as "1 second". */
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
  initial: allowed.natural,
  maxQueue: allowed.natural,
  maxQueuePerCaller: allowed.natural,
  order: allowed.order,
  ageing: allowed.duration,
  per: allowed.duration,
  interval: allowed.duration,
  maxWait: allowed.duration,
  timeout: allowed.duration,
  align: allowed.boolean,
  kind: allowed.kind,
  zone: allowed.zone,
  from: allowed.from,
  onReentry: allowed.onReentry,
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
  order: Schema.optionalKey(Schema.Literals(["arrival", "priority", "fair"])),
  ageing: Schema.optionalKey(Millis),
  maxQueue: Schema.optionalKey(Natural),
  maxQueuePerCaller: Schema.optionalKey(Natural),
  maxWait: Schema.optionalKey(Millis),
  timeout: Schema.optionalKey(Millis)
}

const { maxWait: _, ...withoutMaxWait } = common

/** Absent for the default, so that the data of most policies does not have it. */
const onReentry = Schema.optionalKey(Schema.Literals(["die", "bypass"]))

const second = Millis.pipe(Schema.withDecodingDefaultKey(Effect.succeed(1_000)))

/**
 * The data of `Throttle.rate`: one start every `per / limit`, and up to `burst` more on credit.
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
 * The data of `Throttle.tokenBucket`: a bucket of `capacity` permits, refilled by `refill` every `per`; `initial` of them
 * are there at first.
 *
 * @category schemas
 * @since 0.1.0
 */
export const TokenBucket = Schema.TaggedStruct("TokenBucket", {
  capacity: Positive,
  refill: Positive,
  per: second,
  /** Absent for a bucket that is full at first. */
  initial: Schema.optionalKey(Natural),
  ...common
})

/**
 * The data of `Throttle.window`: at most `limit` permits in any `per` (sliding), or in each window of the wall clock
 * (fixed).
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
 * The data of `Throttle.window` with the kind "calendar": at most `limit` permits in each day, week or month of a time
 * zone. Its tag is that of {@link Window}.
 *
 * @category schemas
 * @since 0.2.0
 */
export const CalendarWindow = Schema.TaggedStruct("Window", {
  kind: Schema.Literal("calendar"),
  limit: Positive,
  per: Schema.Literals(Zone.units),
  zone: Schema.String.check(Schema.makeFilter(Zone.isZone, { expected: allowed.zone })).pipe(
    Schema.withDecodingDefaultKey(Effect.succeed("UTC"))
  ),
  ...common
})

/**
 * The data of `Throttle.concurrency`: at most `limit` permits held at once.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Concurrency = Schema.TaggedStruct("Concurrency", { limit: Positive, onReentry, ...withoutMaxWait })

/**
 * The data of `Throttle.spacing`: at least `interval` between starts, or from an end to the next start.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Spacing = Schema.TaggedStruct("Spacing", {
  interval: Millis,
  align: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(false))),
  from: Schema.Literals(["start", "end"]).pipe(Schema.withDecodingDefaultKey(Effect.succeed("start" as const))),
  onReentry,
  ...common
})

/**
 * The data of `Throttle.none`: no limit.
 *
 * @category schemas
 * @since 0.1.0
 */
export const None = Schema.TaggedStruct("None", { ...common })

/**
 * The data of `Throttle.all`: every part at one instant.
 *
 * @category models
 * @since 0.1.0
 */
export interface AllData extends Schema.Struct.Type<typeof common> {
  readonly _tag: "All"
  readonly policies: ReadonlyArray<PolicyData>
}

/**
 * The encoded form of {@link AllData}.
 *
 * @category models
 * @since 0.1.0
 */
export interface AllEncoded extends Schema.Struct.Encoded<typeof common> {
  readonly _tag: "All"
  readonly policies: ReadonlyArray<PolicyEncoded>
}

/**
 * The data of `Throttle.shadow`: a policy that is simulated and holds back no call.
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
 * The encoded form of {@link ShadowData}.
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
  | typeof CalendarWindow.Type
  | typeof Concurrency.Type
  | typeof Spacing.Type
  | typeof None.Type
  | AllData
  | ShadowData

/**
 * The encoded form of a policy: options with a default may be absent, durations are milliseconds or texts such as "1
 * second".
 *
 * @category models
 * @since 0.1.0
 */
export type PolicyEncoded =
  | typeof Rate.Encoded
  | typeof TokenBucket.Encoded
  | typeof Window.Encoded
  | typeof CalendarWindow.Encoded
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

export const members = { Rate, TokenBucket, Window, Concurrency, Spacing, None, All, Shadow }

/** Returns the fields of a policy's data, by its tag and its options. */
export const fieldsOf = (
  tag: PolicyData["_tag"],
  options: { readonly kind?: unknown }
): Record<string, Schema.ConstraintDecoder<unknown>> =>
  (tag === "Window" && options.kind === "calendar" ? CalendarWindow : members[tag]).fields as any

/** Returns the allowed values of an option, in words. */
export const allowedFor = (option: string, options: { readonly kind?: unknown }): string =>
  option === "per" && options.kind === "calendar" ? allowed.calendarUnit : rules[option]!

/** Whether a policy, or a part of it, satisfies a test. */
const some = (data: PolicyData, test: (data: PolicyData) => boolean): boolean =>
  test(data) ||
  (data._tag === "Shadow"
    ? some(data.policy, test)
    : data._tag === "All" && data.policies.some((part) => some(part, test)))

const timed: ReadonlyArray<PolicyData["_tag"]> = ["Rate", "TokenBucket", "Window", "Spacing"]

/** Whether concurrency alone decides, so that no wait can be estimated. */
const isConcurrencyAlone = (data: PolicyData): boolean =>
  some(data, ({ _tag }) => _tag === "Concurrency") && !some(data, ({ _tag }) => timed.includes(_tag))

export const maxWaitNeedsTime = "\"maxWait\" needs a time-based part, since the end of a running call is unknown"

/** The intervals of all parts that are aligned to the wall clock. */
const clockIntervals = (data: PolicyData): ReadonlyArray<number> =>
  data._tag === "All"
    ? data.policies.flatMap(clockIntervals)
    : data._tag === "Spacing" && data.align
    ? [data.interval]
    : []

/**
 * Whether the multiples of all intervals coincide at least once in 10,000 of each. Otherwise almost no call would
 * start.
 */
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

/** Finds an error in the order of a policy's queue. */
const orderInconsistency = (data: PolicyData): string | undefined => {
  if (data._tag === "Shadow") return undefined
  if (data._tag === "All" && data.policies.some((part) => "order" in part || "ageing" in part)) {
    return "\"order\" and \"ageing\" are for a whole policy, not for a part of one: all parts have one queue"
  }
  const { ageing, order = "arrival" } = data
  if (order === "arrival") return ageing === undefined ? undefined : "\"ageing\" needs order \"priority\" or \"fair\""
  if (order === "priority" && ageing === undefined) {
    return "order \"priority\" needs \"ageing\", the time of waiting that one step of priority is worth"
  }
  return some(data, (part) => "maxWait" in part)
    ? "\"maxWait\" needs order \"arrival\": in any other order later calls may start first, so no wait can be promised; " +
      "use \"timeout\""
    : undefined
}

/** Finds an error that depends on several options or parts; undefined if there is none. */
export const inconsistency = (data: PolicyData): string | undefined => {
  if (data._tag === "All" && data.policies.some((part) => part._tag === "Shadow")) {
    return "shadow is for a whole policy, not for a part of one: pipe the effect through both"
  }
  if (data._tag === "Shadow" && data.policy._tag === "Shadow") return "the policy is in shadow already"
  if (data._tag === "All" && data.maxWait !== undefined && isConcurrencyAlone(data)) return maxWaitNeedsTime
  if (data._tag === "All" && !coincide(clockIntervals(data))) {
    return "the slots of its aligned parts must coincide at least once in 10,000 intervals"
  }
  if (data._tag === "TokenBucket" && data.initial !== undefined && data.initial > data.capacity) {
    return `"initial" must be at most "capacity" (${data.capacity}), received ${data.initial}`
  }
  if (data._tag === "Rate" && !Number.isSafeInteger(data.burst + 1)) return "burst is too large"
  return orderInconsistency(data)
}

/**
 * The schema of {@link PolicyData}.
 *
 * By itself it ignores unknown options. They are errors in {@link decode} and `Throttle.decode`, and in JSON that
 * `Throttle.config` reads.
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
 * @see {@link decode} to decode strictly
 * @category schemas
 * @since 0.1.0
 */
export const PolicyData: Schema.Codec<PolicyData, PolicyEncoded> = Schema.Union([
  Rate,
  TokenBucket,
  Window,
  CalendarWindow,
  Concurrency,
  Spacing,
  None,
  All,
  Shadow
]).check(Schema.makeFilter((data: PolicyData) => inconsistency(data)))

/** Maximum depth of nested policies. A deeper structure may be cyclic, and would exhaust the stack. */
export const deepest = 100

export const tooDeep = (input: unknown): boolean => {
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
 * Two schemas have the tag of windows, so an invalid window has two errors. Returns the one of the calendar's schema if
 * the window has its kind, else the other.
 */
const ofOneWindow = (issue: SchemaIssue.Issue): SchemaIssue.Issue => {
  switch (issue._tag) {
    case "AnyOf": {
      const [window, calendar] = issue.issues
      const isOfKind = calendar?._tag === "Composite" &&
        calendar.issues.some((one) => one._tag === "Pointer" && one.path[0] === "kind")
      const one = isOfKind ? window : calendar ?? window
      return one === undefined ? issue : ofOneWindow(one)
    }
    case "Composite":
      return new SchemaIssue.Composite(issue.ast, Arr.map(issue.issues, ofOneWindow))
    case "Pointer":
      return new SchemaIssue.Pointer(issue.path, ofOneWindow(issue.issue))
    default:
      return issue
  }
}

/**
 * Decodes the data of a policy from outside, such as parsed JSON.
 *
 * Fails with a `SchemaError` if a constructor would throw: for an unknown tag or option, an invalid value, or policies
 * nested more than 100 deep.
 *
 * @see `Throttle.decode` for the policy instead of its data
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
      : Effect.mapError(decodeStrictly(input), ({ issue }) => new Schema.SchemaError(ofOneWindow(issue)))
  )
