/**
 * Requests and answers of the store in Redis as the scripts read and write them.
 */
import type * as Types from "effect/Types"
import { shortest } from "../../internal/part/calendar.ts"
import { calendarOf, lengthOf } from "../../internal/part/zone.ts"
import type { Decision, Left, Request, Together } from "../ThrottleStore.ts"
import { grace, grainOf, micros, type Rule, type Rules } from "./rules.ts"
import { replyFields } from "./scripts.ts"

/** Beyond any wait, as Lua reads it. */
const forever = 1e18

export const leasesKey = (key: string): string => `${key}:leases`

/** After an update that took a pool away, what it holds is still released. */
const hasLeases = ({ releases, rules }: Request): boolean => rules.pools.length + releases.length > 0

/** All keys of a throttle are in one hash slot: the part in braces decides. */
export const keysOf = (request: Request): ReadonlyArray<string> => {
  const { key, rules } = request
  const logs = rules.meters.filter(({ kind }) => kind === "sliding").map(({ field }) => `${key}:${field}`)
  return hasLeases(request) ? [key, ...logs, leasesKey(key), `${key}:line`] : [key, ...logs]
}

/**
 * Returns a function that encodes the rules as of an instant, in milliseconds of Unix time. A throttle sends the same
 * rules again and again, so the latest result is kept.
 */
export const rulesEncoder = ({ meters, pools }: Rules): (millis: number) => string => {
  const parts = meters.map(completer)
  let latest: { readonly parts: ReadonlyArray<unknown>; readonly text: string } | undefined
  return (millis) => {
    const completed = parts.map((complete) => complete(millis))
    if (latest === undefined || completed.some((part, i) => part !== latest!.parts[i])) {
      latest = { parts: completed, text: JSON.stringify({ pools, meters: completed }) }
    }
    return latest.text
  }
}

/** Adds to a rule what the script needs. The result is the same one as long as it is equal. */
const completer = (rule: Rule): (millis: number) => unknown => {
  if (rule.kind === "calendar") return windowsOf(rule)
  const completed = rule.kind === "rate"
    ? { ...rule, grace }
    : rule.kind === "sliding"
    ? { ...rule, grain: grainOf(rule.per, rule.limit) }
    : rule
  return () => completed
}

/** How many windows of a calendar the script is told: so many before the present one, and so many after it. */
const told = { before: 1, after: 6 }

/**
 * Windows of a calendar are fixed windows for the script, with their edges in microseconds of Unix time, since Redis does
 * not know time zones.
 */
const windowsOf = ({ field, limit, unit, zone }: Extract<Rule, { readonly kind: "calendar" }>) => {
  const { startsOf, unitAt } = calendarOf(unit, zone)
  const encode = (n: number) => ({
    field,
    kind: "fixed",
    limit,
    per: lengthOf(unit) * 1e3,
    shortest: micros(shortest),
    edges: startsOf(n - told.before, told.before + told.after + 2).map((millis) => millis * 1e3)
  })
  let latest: { readonly n: number; readonly rule: unknown } | undefined
  return (millis: number): unknown => {
    const n = unitAt(millis)
    if (latest?.n !== n) latest = { n, rule: encode(n) }
    return latest.rule
  }
}

/** Fields at their defaults are left out: reading JSON takes a good part of a script's time. */
export const encodeRequest = (request: Request): string => {
  const { asksLeft, isDry, maxWait, releases, returns, runs, settlements, settleWithin, since, waited } = request
  const encoded: Partial<Types.Mutable<Request>> = { runs, maxWait: Math.min(maxWait, forever) }
  if (waited > 0 && since !== undefined) Object.assign(encoded, { since, waited })
  if (isDry) encoded.isDry = true
  if (asksLeft) encoded.asksLeft = true
  if (returns !== undefined) encoded.returns = returns
  if (settlements.length > 0) encoded.settlements = settlements
  if (settleWithin > 0) encoded.settleWithin = settleWithin
  if (hasLeases(request)) {
    const { channel, firstLease, joins, owner, patience, ttl } = request
    Object.assign(encoded, { channel, firstLease, joins, owner, patience, releases, ttl })
  }
  return JSON.stringify(encoded)
}

/** Of a pause: so long, 31 years, is without an end. */
const longest = forever / 1e3

export const encodeDuration = (micros: number): string => String(Math.min(micros, longest))

/** The leases, three numbers for what is left of each part, and the values of {@link replyFields}. */
export type Reply = readonly [
  leases: ReadonlyArray<string>,
  left: ReadonlyArray<number>,
  ...values: ReadonlyArray<number>
]

const decodeLeft = (left: ReadonlyArray<number>): ReadonlyArray<Left> =>
  Array.from({ length: left.length / 3 }, (_, i) => {
    const known = (micros: number) => micros < 0 ? undefined : micros
    return { permits: left[3 * i]!, untilMore: known(left[3 * i + 1]!), untilFull: known(left[3 * i + 2]!) }
  })

/** The first request that is blocked, counted from 1, or 0; 1 if all were granted, else 0; the reply of each. */
export type ReplyTogether = readonly [blocked: number, isGranted: number, replies: ReadonlyArray<Reply>]

export const decodeTogether = ([blocked, isGranted, replies]: ReplyTogether): Together => ({
  decisions: replies.map(decodeReply),
  isGranted: isGranted === 1,
  blocked: blocked === 0 ? undefined : blocked - 1
})

export const decodeReply = ([leases, left, ...values]: Reply): Decision => {
  const value = (name: (typeof replyFields)[number]): number => values[replyFields.indexOf(name)]!
  const optional = (name: (typeof replyFields)[number]) => value(name) < 0 ? undefined : value(name)
  const [now, slotAt, wait] = [value("now"), optional("slotAt"), optional("wait")]
  const isPaused = value("isPaused") === 1
  return {
    granted: value("granted"),
    slot: slotAt === undefined ? undefined : { at: slotAt, wait: slotAt - now },
    wait: isPaused && wait !== undefined && wait > longest / 2 ? undefined : wait,
    isBusy: value("isBusy") === 1,
    part: value("part"),
    now,
    version: value("version"),
    leases,
    fence: value("fence"),
    nextExpiry: optional("nextExpiry"),
    isPaused,
    hasReturned: value("hasReturned") === 1,
    left: decodeLeft(left)
  }
}
