/**
 * What a client remembers of each key, for as long as it is of use.
 */
import * as Line from "../../internal/line.ts"
import type { KeyStatistics } from "../clientStatistics.ts"
import { type ServerClock, unknown } from "./freshness.ts"
import * as Learner from "./learning/learner.ts"
import * as Pacer from "./pacer.ts"
import * as RetryBudget from "./retryBudget.ts"

/** What is known of one key's server. */
export interface Remembered extends Line.Place<Remembered> {
  readonly key: string
  clock: ServerClock
  /** What was learned of the server's limit; undefined where nothing is to be. */
  readonly pacer: Pacer.Pacer | undefined
  readonly budget: RetryBudget.Budget
  /** Requests on their way, waiting ones included. */
  requests: number
  /** Answers that refused, requests that were sent again, and those that the retry budget did not let. */
  readonly counters: { refused: number; repeated: number; denied: number }
  /** The monotonic instant of the last use, in nanoseconds. */
  usedAt: number
}

export interface Memory {
  /** Whether servers' limits are learned. */
  readonly adapts: boolean
  readonly keys: Map<string, Remembered>
  /** By last use, longest ago first. */
  readonly byUse: Line.Line<Remembered>
}

export const make = (adapts: boolean): Memory => ({ adapts, keys: new Map(), byUse: Line.make() })

/** Maximum number of keys that are remembered. An idle one takes 1.2 kB, without learning 0.7 kB. */
const mostKeys = 10_000

/** Nanoseconds for which a key is remembered at least that is not used. */
const kept = 60e9

/** So many keys are looked at for one to forget. */
const search = 16

/** Begins the use of a key; undefined where no more can be remembered. `now` is monotonic, in nanoseconds. */
export const enter = (memory: Memory, key: string, now: number): Remembered | undefined => {
  forget(memory, now, false)
  let found = memory.keys.get(key)
  if (found === undefined) {
    if (memory.keys.size >= mostKeys && !forget(memory, now, true)) return undefined
    found = {
      key,
      clock: unknown,
      pacer: memory.adapts ? Pacer.make(now) : undefined,
      budget: RetryBudget.make(),
      requests: 0,
      counters: { refused: 0, repeated: 0, denied: 0 },
      usedAt: now,
      ahead: undefined,
      behind: undefined
    }
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

/** Forgets a key that is not in use, among those used longest ago: one whose time is over, or where there must be room any. */
const forget = ({ byUse, keys }: Memory, now: number, isForced: boolean): boolean => {
  let oldest = byUse.head
  for (let i = 0; i < search && oldest !== undefined; i++) {
    const { pacer, requests, usedAt } = oldest
    if (!isForced && now - usedAt < kept) return false
    if (requests === 0 && (isForced || pacer === undefined || now - usedAt >= Learner.windowOf(pacer.learner))) {
      Line.leave(byUse, oldest)
      return keys.delete(oldest.key)
    }
    oldest = oldest.behind
  }
  return false
}

/** What is remembered of each key. */
export const statistics = ({ keys }: Memory, now: number): ReadonlyMap<string, KeyStatistics> =>
  new Map(
    Array.from(
      keys,
      ([key, { counters, pacer }]) => [key, { ...(pacer ? Pacer.statistics(pacer, now) : none), ...counters }]
    )
  )

const none = { rate: Infinity, limit: "unknown", remaining: Infinity, waiting: 0, running: 0 } as const
