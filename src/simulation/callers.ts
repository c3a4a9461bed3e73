/** The callers of a simulation, as pictures and texts tell them apart. */
import type { Call, Result } from "./run.ts"

/** The calls of one caller. */
export interface Group {
  /** Its key, "no caller", or "5 others" for all callers beyond the largest ones. */
  readonly name: string
  readonly calls: ReadonlyArray<Call>
}

/** As many as a picture has room for. */
const mostGroups = 8

/**
 * The calls by caller, those with the fewest calls first. Of many callers the ones with the most calls have a group each, and
 * all others share the last one. Empty if all calls have the same caller, or none.
 */
export const groupsOf = ({ calls }: Result): ReadonlyArray<Group> => {
  if (calls.every(({ caller }) => caller === calls[0]!.caller)) return []
  const all = new Map<string, Array<Call>>()
  for (const call of calls) {
    const { caller = "" } = call
    const group = all.get(caller)
    if (group === undefined) all.set(caller, [call])
    else group.push(call)
  }
  const bySize = [...all].toSorted(([, a], [, b]) => a.length - b.length)
  const others = new Set((bySize.length > mostGroups ? bySize.slice(0, 1 - mostGroups) : []).map(([key]) => key))
  const named = bySize.slice(others.size).map(([key, calls]) => ({ name: nameOf(key), calls }))
  return others.size === 0
    ? named
    : [...named, { name: `${others.size} others`, calls: calls.filter(({ caller = "" }) => others.has(caller)) }]
}

const nameOf = (key: string): string => key === "" ? "no caller" : key.replace(/[\p{Cc}\p{Cs}]/gu, "\uFFFD")

/** A name of at most so many characters. The middle is left out: the ends of long keys tell them apart. */
export const shortened = (name: string, most: number): string => {
  if (name.length <= most) return name
  // No half of a character that takes two
  const begin = name.slice(0, Math.ceil((most - 1) / 2)).replace(/\p{Cs}$/u, "")
  const end = name.slice(name.length - Math.floor((most - 1) / 2)).replace(/^\p{Cs}/u, "")
  return `${begin}…${end}`
}
