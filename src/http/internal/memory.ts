/**
 * What a client remembers of each key, for as long as it is of use.
 */
import * as Line from "../../internal/line.ts"
import { type ServerClock, unknown } from "./freshness.ts"

/** What is known of one key's server. */
export interface Remembered extends Line.Place<Remembered> {
  readonly key: string
  clock: ServerClock
  /** Requests on their way, waiting ones included. */
  requests: number
  /** The monotonic instant of the last use, in nanoseconds. */
  usedAt: number
}

export interface Memory {
  readonly keys: Map<string, Remembered>
  /** By last use, longest ago first. */
  readonly byUse: Line.Line<Remembered>
}

export const make = (): Memory => ({ keys: new Map(), byUse: Line.make() })

/** So many keys are remembered. An idle one takes some hundred bytes. */
const mostKeys = 10_000

/** Nanoseconds for which a key is remembered that is not used. */
const keptFor = 60e9

/** So many keys are looked at for one to forget. */
const search = 16

/** Begins the use of a key; undefined where no more can be remembered. `now` is monotonic, in nanoseconds. */
export const enter = (memory: Memory, key: string, now: number): Remembered | undefined => {
  forget(memory, now - keptFor)
  let found = memory.keys.get(key)
  if (found === undefined) {
    if (memory.keys.size >= mostKeys && !forget(memory, now)) return undefined
    found = { key, clock: unknown, requests: 0, usedAt: now, ahead: undefined, behind: undefined }
    memory.keys.set(key, found)
    Line.enter(memory.byUse, found)
  }
  found.requests++
  use(memory, found, now)
  return found
}

/** Ends the use of a key. */
export const leave = (memory: Memory, remembered: Remembered, now: number): void => {
  remembered.requests--
  use(memory, remembered, now)
}

const use = ({ byUse }: Memory, remembered: Remembered, now: number): void => {
  remembered.usedAt = now
  if (byUse.tail === remembered) return
  Line.leave(byUse, remembered)
  Line.enter(byUse, remembered)
}

/** Forgets a key that is not in use and was last used before then, among those used longest ago. */
const forget = ({ byUse, keys }: Memory, before: number): boolean => {
  let oldest = byUse.head
  for (let i = 0; i < search && oldest !== undefined && oldest.usedAt <= before; i++) {
    if (oldest.requests === 0) {
      Line.leave(byUse, oldest)
      return keys.delete(oldest.key)
    }
    oldest = oldest.behind
  }
  return false
}
