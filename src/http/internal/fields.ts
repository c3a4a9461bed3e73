/**
 * What a client is told of its limits: the fields of the IETF draft on rate limits (draft-ietf-httpapi-ratelimit-headers),
 * in three of its versions.
 */
import type { MeterPart, Plan, PoolPart } from "../../internal/plan.ts"
import { capacityOf, partsOf, type Remaining } from "../../internal/remaining.ts"
import * as Structured from "./structured.ts"

export const dialects = ["draft-10", "draft-7", "draft-6", "none"] as const

export type Dialect = typeof dialects[number]

export type Fields = Readonly<Record<string, string>>

/** Writes the fields for what is left of each part of a plan. */
export type Writer = (left: ReadonlyArray<Remaining>) => Fields

/** The largest integer of a structured field (RFC 9651). */
const largest = 999_999_999_999_999

/** Less than this beside a whole number is the noise of a fraction. */
const grain = 1e-9

export interface Quota {
  readonly quota: number
  /** In seconds; undefined where permits are held, not spent. */
  readonly window: number | undefined
}

/**
 * The quota of a part, and the window that it is for. It is never less than may start at once, and spending it evenly over
 * the window is always allowed. So the window is the time that the limit is written for, or the time a bucket takes to
 * fill where that is longer, in whole seconds.
 */
export const quotaOf = (part: MeterPart | PoolPart): Quota => {
  const capacity = capacityOf(part)
  if (!("meter" in part)) return { quota: Math.min(capacity, largest), window: undefined }
  const { per, permits } = part.pace
  const interval = per / permits
  const window = Math.ceil(Math.max(per, capacity * interval) / 1e9 * (1 - grain))
  const quota = Math.floor(window * 1e9 / interval * (1 + grain))
  return { quota: Math.min(quota, largest), window: Math.min(window, largest) }
}

/** By what the fields call the parts: each by its own name; the only one by the middleware's; others by what they say. */
export const namesOf = (plan: Plan, name: string): ReadonlyArray<string> => {
  const parts = partsOf(plan)
  return parts.map((part) => ascii(part.givenName ?? (parts.length === 1 ? name : part.name)))
}

/** A structured field's string has no characters beyond ASCII. */
export const ascii = (text: string): string => text.replace(/[^\x20-\x7e]/g, "?")

const quoted = (text: string): string => `"${ascii(text).replace(/["\\]/g, "\\$&")}"`

const unitOf = (part: MeterPart | PoolPart): string =>
  part.unit !== "permits" ? `;qu=${quoted(part.unit)}` : "meter" in part ? "" : `;qu="concurrent-requests"`

/** Whole seconds until more is there, rounded up. */
const seconds = (more: number): number => Math.min(largest, Math.max(1, Math.ceil(more / 1e9)))

const draft10 = (plan: Plan, name: string): Writer => {
  const names = namesOf(plan, name).map(quoted)
  const policy = partsOf(plan).map((part, i) => {
    const { quota, window } = quotaOf(part)
    return `${names[i]};q=${quota}${window === undefined ? "" : `;w=${window}`}${unitOf(part)}`
  }).join(", ")
  return (left) => ({
    "ratelimit-policy": policy,
    ratelimit: left.map(({ permits, untilMore }, i) =>
      `${names[i]};r=${Math.min(permits, largest)}${untilMore === undefined ? "" : `;t=${seconds(untilMore)}`}`
    ).join(", ")
  })
}

/** Earlier versions tell of one part only: the one that a client meets first. */
const tightest = (left: ReadonlyArray<Remaining>): number =>
  left.reduce((best, { permits, untilMore = 0 }, i) => {
    const { permits: least, untilMore: longest = 0 } = left[best]!
    return permits < least || (permits === least && untilMore > longest) ? i : best
  }, 0)

const earlier = (write: (limit: number, left: number, reset: number) => Fields) => (plan: Plan): Writer => {
  const quotas = partsOf(plan).map(quotaOf)
  const policy = quotas.flatMap(({ quota, window }) => window === undefined ? [] : [`${quota};w=${window}`]).join(", ")
  const fixed = policy === "" ? undefined : { "ratelimit-policy": policy }
  return (left) => {
    const i = tightest(left)
    const { permits, untilMore } = left[i]!
    const reset = untilMore === undefined ? 0 : seconds(untilMore)
    return { ...fixed, ...write(quotas[i]!.quota, Math.min(permits, largest), reset) }
  }
}

const writers: Record<Exclude<Dialect, "none">, (plan: Plan, name: string) => Writer> = {
  "draft-10": draft10,
  "draft-7": earlier((limit, left, reset) => ({ ratelimit: `limit=${limit}, remaining=${left}, reset=${reset}` })),
  "draft-6": earlier((limit, left, reset) => ({
    "ratelimit-limit": String(limit),
    "ratelimit-remaining": String(left),
    "ratelimit-reset": String(reset)
  }))
}

/** What writes a plan's fields. What never changes is written once, here. */
export const writerOf = (dialect: Exclude<Dialect, "none">, plan: Plan, name: string): Writer =>
  writers[dialect](plan, name)

/** A limit, and what is left of each of its parts. */
export interface Left {
  readonly writer: Writer
  readonly left: ReadonlyArray<Remaining>
}

/** The fields of several limits, from the narrowest to the widest: earlier versions tell of the one that is met first. */
export const ofAll = (dialect: Dialect, limits: ReadonlyArray<Left>): Fields => {
  const written = limits.map(({ left, writer }) => writer(left))
  const join = (field: string) => written.flatMap((fields) => fields[field] ?? []).join(", ")
  if (dialect === "draft-10") return { "ratelimit-policy": join("ratelimit-policy"), ratelimit: join("ratelimit") }
  const policy = join("ratelimit-policy")
  const first = tightest(limits.map(({ left }) => left[tightest(left)]!))
  return policy === "" ? written[first]! : { ...written[first], "ratelimit-policy": policy }
}

/** Whether more may be added to what a field says: to names, not to what it said in an earlier version. */
const isListOfNames = (text: string): boolean =>
  Structured.list(text)?.every(({ value }) => typeof value === "string") === true

/** Together with what the answer carries already, such as the fields of a throttle further out. */
export const addTo = (dialect: Dialect, headers: Fields, fields: Fields): Fields => {
  if (dialect !== "draft-10" || (headers["ratelimit"] === undefined && headers["ratelimit-policy"] === undefined)) {
    return fields
  }
  return Object.fromEntries(
    Object.entries(fields).map(([field, value]) => {
      const there = headers[field]
      return [field, there !== undefined && isListOfNames(there) ? `${there}, ${value}` : value]
    })
  )
}
