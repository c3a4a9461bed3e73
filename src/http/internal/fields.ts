/**
 * What a client is told of its limits: the fields of the IETF draft on rate limits (draft-ietf-httpapi-ratelimit-headers),
 * in three of its versions.
 */
import type { Remaining } from "../../internal/remaining.ts"

export const dialects = ["draft-10", "draft-7", "draft-6", "none"] as const

export type Dialect = typeof dialects[number]

export type Fields = Readonly<Record<string, string>>

/** The largest integer of a structured field (RFC 9651). */
const largest = 999_999_999_999_999

/** More than this above a whole number is not the noise of a fraction. */
const grain = 1e-9

/**
 * The quota of a part, and the window that it is for, in seconds. It is never less than may start at once, and spending it
 * evenly over the window is always allowed. So the window is the time that the limit is written for, or the time a bucket
 * takes to fill where that is longer, in whole seconds.
 */
export const quotaOf = ({ capacity, pace }: Remaining): { readonly quota: number; readonly window?: number } => {
  if (pace === undefined) return { quota: capacity }
  const interval = pace.per / pace.permits
  const window = Math.ceil(Math.max(pace.per, capacity * interval) / 1e9 * (1 - grain))
  const quota = Math.floor(window * 1e9 / interval * (1 + grain))
  return { quota: Math.min(quota, largest), window: Math.min(window, largest) }
}

/** Whole seconds until more is there, rounded up. */
const secondsUntilMore = ({ more }: Remaining): number | undefined =>
  more === undefined ? undefined : Math.min(largest, Math.max(1, Math.ceil(more / 1e9)))

/** A structured field's string, which has no characters beyond ASCII. */
const quoted = (text: string): string => `"${text.replace(/[^\x20-\x7e]/g, "?").replace(/["\\]/g, "\\$&")}"`

/** By what the fields call a part: its own name; or the middleware's, if it is the only one; or what it says. */
export const nameOf = (part: Remaining, parts: ReadonlyArray<Remaining>, name: string): string =>
  part.given ?? (parts.length === 1 ? name : part.name)

const unitOf = ({ pace, unit }: Remaining): string =>
  unit !== "permits" ? `;qu=${quoted(unit)}` : pace === undefined ? `;qu="concurrent-requests"` : ""

/** The part that a client meets first: older versions tell of one only. */
const tightest = (parts: ReadonlyArray<Remaining>): Remaining =>
  parts.reduce((a, b) => b.left < a.left || (b.left === a.left && (b.more ?? 0) > (a.more ?? 0)) ? b : a)

const policiesOf = (parts: ReadonlyArray<Remaining>): Fields => {
  const policies = parts.map(quotaOf).flatMap(({ quota, window }) =>
    window === undefined ? [] : [`${quota};w=${window}`]
  )
  return policies.length === 0 ? {} : { "ratelimit-policy": policies.join(", ") }
}

const written: Record<Dialect, (parts: ReadonlyArray<Remaining>, name: string) => Fields> = {
  "draft-10": (parts, name) => ({
    "ratelimit-policy": parts.map((part) => {
      const { quota, window } = quotaOf(part)
      return `${quoted(nameOf(part, parts, name))};q=${quota}${window === undefined ? "" : `;w=${window}`}${
        unitOf(part)
      }`
    }).join(", "),
    ratelimit: parts.map((part) => {
      const seconds = secondsUntilMore(part)
      return `${quoted(nameOf(part, parts, name))};r=${part.left}${seconds === undefined ? "" : `;t=${seconds}`}`
    }).join(", ")
  }),
  "draft-7": (parts) => {
    const part = tightest(parts)
    return {
      ...policiesOf(parts),
      ratelimit: `limit=${quotaOf(part).quota}, remaining=${part.left}, reset=${secondsUntilMore(part) ?? 0}`
    }
  },
  "draft-6": (parts) => {
    const part = tightest(parts)
    return {
      ...policiesOf(parts),
      "ratelimit-limit": String(quotaOf(part).quota),
      "ratelimit-remaining": String(part.left),
      "ratelimit-reset": String(secondsUntilMore(part) ?? 0)
    }
  },
  none: () => ({})
}

/** The fields for what is left of each part; none where there is no limit. */
export const write = (dialect: Dialect, parts: ReadonlyArray<Remaining>, name: string): Fields =>
  parts.length === 0 ? {} : written[dialect](parts, name)

/** Together with the fields of a throttle further out. A list goes on; the older versions have no list. */
export const addTo = (dialect: Dialect, headers: Fields, fields: Fields): Fields =>
  dialect !== "draft-10" || headers["ratelimit"] === undefined
    ? fields
    : Object.fromEntries(
      Object.entries(fields).map(([field, value]) => [
        field,
        headers[field] === undefined ? value : `${headers[field]}, ${value}`
      ])
    )
