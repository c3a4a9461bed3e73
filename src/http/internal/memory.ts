/**
 * What a client remembers of each key, for as long as it is of use.
 */
import * as List from "../../internal/list.ts"
import type { KeyStatistics } from "../clientStatistics.ts"
import { type ServerClock, unknown } from "./freshness.ts"
import * as Learner from "./learning/learner.ts"
import * as Pacer from "./pacer.ts"
import * as RetryBudget from "./retryBudget.ts"

/** What is known of one key's server. */
/** In the line while no request of it is on its way. */
export interface Remembered extends List.Node<Remembered> {
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
  /** The idle ones by last use, longest ago first. */
  readonly idle: List.List<Remembered>
  /** The keys that have a series of the learned rate. */
  readonly series: Set<string>
}

export const make = (adapts: boolean): Memory => ({ adapts, keys: new Map(), idle: List.make(), series: new Set() })

/** Maximum number of keys that are remembered. An idle one takes 1.2 kB, without learning 0.7 kB. */
const mostKeys = 10_000

/** Nanoseconds for which a key is remembered at least that is not used. */
const kept = 60e9

/** So many keys are looked at for one to forget. */
const search = 16

/** Series of the learned rate are never given up, so there are no more than this. */
const mostSeries = 1_000

/** Begins the use of a key; undefined where no more can be remembered. `now` is monotonic, in nanoseconds. */
export const enter = (memory: Memory, key: string, now: number): Remembered | undefined => {
  const { idle, keys } = memory
  let found = keys.get(key)
  if (found?.requests === 0) {
    List.remove(idle, found)
    if (isOver(found, now)) {
      keys.delete(key)
      found = undefined
    }
  }
  forget(memory, now)
  if (found === undefined) {
    if (keys.size >= mostKeys && !forgetOldest(memory)) return undefined
    found = {
      key,
      clock: unknown,
      pacer: memory.adapts ? Pacer.make(now) : undefined,
      budget: RetryBudget.make(),
      requests: 0,
      counters: { refused: 0, repeated: 0, denied: 0 },
      usedAt: now,
      prev: undefined,
      next: undefined
    }
    keys.set(key, found)
  }
  found.requests++
  return found
}

/** Ends the use of a key. */
export const leave = ({ idle }: Memory, remembered: Remembered, now: number): void => {
  remembered.usedAt = now
  if (--remembered.requests === 0) List.add(idle, remembered)
}

/** Whether an idle key has not been used for long enough to be forgotten. */
const isOver = ({ pacer, usedAt }: Remembered, now: number): boolean =>
  now - usedAt >= kept && (pacer === undefined || now - usedAt >= Learner.windowOf(pacer.learner))

const remove = ({ idle, keys }: Memory, remembered: Remembered): boolean => {
  List.remove(idle, remembered)
  return keys.delete(remembered.key)
}

/** Makes room, where there is an idle key. */
const forgetOldest = (memory: Memory): boolean => memory.idle.first !== undefined && remove(memory, memory.idle.first)

/** Forgets a key that is over, among those used longest ago. */
const forget = (memory: Memory, now: number): void => {
  let oldest = memory.idle.first
  for (let i = 0; i < search && oldest !== undefined && now - oldest.usedAt >= kept; i++) {
    if (isOver(oldest, now)) return void remove(memory, oldest)
    oldest = oldest.next
  }
}

/** Whether the learned rate of a key may have a series. */
export const hasSeries = ({ series }: Memory, key: string): boolean =>
  series.has(key) || (series.size < mostSeries && series.add(key).has(key))

/** What is remembered of each key. */
export const statistics = ({ keys }: Memory, now: number): ReadonlyMap<string, KeyStatistics> =>
  new Map(
    Array.from(keys).filter(([, found]) => found.requests > 0 || !isOver(found, now)).map(
      ([key, { counters, pacer }]) => [key, { ...(pacer ? Pacer.statistics(pacer, now) : none), ...counters }]
    )
  )

const none = { rate: Infinity, limit: "unknown", remaining: Infinity, waiting: 0, running: 0 } as const
