/**
 * The meter of a sliding window: its log of starts.
 */
import type { Meter } from "./meter.ts"

export interface SlidingRule {
  readonly kind: "sliding"
  readonly limit: number
  readonly per: number
}

/** The latest starts, newest first. */
interface List {
  readonly at: number
  readonly cost: number
  readonly next: List | undefined
}

/** Earlier starts, oldest first: the instant and the cost of each, alternating. */
interface Chunk {
  readonly starts: ReadonlyArray<number>
  /** The total cost of the chunk. */
  readonly sum: number
}

/**
 * The log of starts, immutable: chunks of earlier starts, and a list of the latest. A start is added to the list and
 * leaves from the first chunk: O(1) on average. A list of 32 starts is appended to the last chunk. A chunk has about as
 * many starts as there are chunks, so finding or changing one of n starts takes O(√n) steps without allocation.
 */
export interface SlidingState {
  readonly chunks: ReadonlyArray<Chunk>
  /** The number of starts of the first chunk that have left the window. */
  readonly gone: number
  readonly latest: List | undefined
  /** The length of `latest`. */
  readonly length: number
  /** The total cost of all starts in the window. */
  readonly sum: number
}

/** Maximum length of the list of the latest starts. */
const listed = 32

const none: ReadonlyArray<Chunk> = []

/** Converts the list into a chunk's form, oldest first. */
const inOrder = (list: List | undefined): Array<number> => {
  const starts: Array<number> = []
  for (; list !== undefined; list = list.next) starts.push(list.cost, list.at)
  return starts.toReversed()
}

const chunkOf = (starts: ReadonlyArray<number>): Chunk => {
  let sum = 0
  for (let i = 1; i < starts.length; i += 2) sum += starts[i]!
  return { starts, sum }
}

/** The instant of the newest start; -Infinity if there is none. */
const newest = ({ chunks, latest }: SlidingState): number =>
  latest !== undefined ? latest.at : chunks.length > 0 ? lastOf(chunks[chunks.length - 1]!) : -Infinity

const lastOf = ({ starts }: Chunk): number => starts[starts.length - 2]!

/** Appends the list to the chunks. */
const flushed = ({ chunks, gone, latest, sum }: SlidingState): SlidingState => {
  const last = chunks.at(-1)
  const starts = inOrder(latest)
  return {
    chunks: last === undefined || last.starts.length / 2 >= Math.max(listed, chunks.length)
      ? [...chunks, chunkOf(starts)]
      : [...chunks.slice(0, -1), chunkOf([...last.starts, ...starts])],
    gone,
    latest: undefined,
    length: 0,
    sum
  }
}

const empty: SlidingState = { chunks: none, gone: 0, latest: undefined, length: 0, sum: 0 }

/** Removes the starts that have left the window. */
const since = (state: SlidingState, now: number, per: number): SlidingState => {
  if (newest(state) + per <= now) return state.sum === 0 ? state : empty
  // The oldest may have left a list: it is looked at as a chunk.
  if (state.chunks.length === 0 && state.length > 1) state = flushed(state)
  const { chunks, latest, length } = state
  let { gone, sum } = state
  let out = 0
  for (; out < chunks.length && lastOf(chunks[out]!) + per <= now; out++) {
    sum -= chunks[out]!.sum
    // Of the first chunk these are gone already.
    for (; gone > 0; gone--) sum += chunks[0]!.starts[2 * gone - 1]!
  }
  if (out === chunks.length) return out === 0 ? state : since({ chunks: none, gone: 0, latest, length, sum }, now, per)
  const { starts } = chunks[out]!
  if (out === 0 && starts[2 * gone]! + per > now) return state
  for (; starts[2 * gone]! + per <= now; gone++) sum -= starts[2 * gone + 1]!
  return { chunks: out === 0 ? chunks : chunks.slice(out), gone, latest, length, sum }
}

/**
 * Counts at most `limit` permits in any span of `per` nanoseconds, exactly: the log contains each start of the last
 * `per`, at most `limit` of them.
 */
export const sliding = ({ limit, per }: SlidingRule): Meter<SlidingState, number> => {
  const readyAt = (state: SlidingState, from: number, cost: number) => {
    // The permits that must leave the window before `cost` fits in.
    let missing = state.sum + cost - limit
    if (missing <= 0) return from
    const { chunks, gone, latest } = state
    /** Returns when `missing` permits of these starts will have left the window. */
    const leaving = (starts: ReadonlyArray<number>, i: number): number | undefined => {
      for (; i < starts.length; i += 2) {
        missing -= starts[i + 1]!
        if (missing <= 0) return Math.max(from, starts[i]! + per)
      }
      return undefined
    }
    for (let i = 0; i < chunks.length; i++) {
      const { starts, sum } = chunks[i]!
      // Part of the first chunk has left the window, so its sum does not count.
      if (i > 0 && sum < missing) missing -= sum
      else {
        const found = leaving(starts, i > 0 ? 0 : 2 * gone)
        if (found !== undefined) return found
      }
    }
    return leaving(inOrder(latest), 0) ?? from
  }
  const charge = (state: SlidingState, at: number, cost: number): SlidingState => {
    // Kept in order: a start may come up to a microsecond before it is due, and be charged as of then.
    at = Math.max(at, newest(state))
    const { chunks, gone, latest, length, sum } = since(state, at, per)
    const charged = { chunks, gone, latest: { at, cost, next: latest }, length: length + 1, sum: sum + cost }
    return length + 1 < listed ? charged : flushed(charged)
  }
  return {
    initial: empty,
    capacity: limit,
    lateness: 0,
    interval: per,
    readyAt,
    readyBehind: (state, from, cost, waiting) => {
      const all = waiting.total + cost
      if (all <= limit) return readyAt(state, from, all)
      // Of calls that cost 1 each, each starts exactly `per` after the one `limit` places ahead of it.
      if (all !== waiting.calls + 1) return undefined
      return readyAt(state, from, (all - 1) % limit + 1) + Math.floor((all - 1) / limit) * per
    },
    charge,
    tryCharge: (state, now, cost) => readyAt(state, now, cost) > now ? undefined : charge(state, now, cost),
    open: (state) => ({ state, ticket: newest(state) }),
    close: (state) => state,
    // The ticket is the instant of the start. Starts of one instant leave together, so any of them may be reduced. A start
    // that costs nothing any more is dropped.
    refund: (state, at, _now, cost) => {
      let left = cost
      let { chunks, gone, length } = state
      let i = 0
      while (i < chunks.length && lastOf(chunks[i]!) < at) i++
      while (left > 0 && i < chunks.length && chunks[i]!.starts[0]! <= at) {
        const { starts, sum } = chunks[i]!
        let from = i > 0 ? 0 : 2 * gone
        while (from < starts.length && starts[from]! < at) from += 2
        let to = from
        let back = 0
        for (; to < starts.length && starts[to] === at && back + starts[to + 1]! <= left; to += 2) {
          back += starts[to + 1]!
        }
        const rest = starts.toSpliced(from, to - from)
        // The next one keeps a part of its cost.
        if (starts[to] === at && back < left) {
          rest[from + 1]! -= left - back
          back = left
        }
        left -= back
        chunks = rest.length > 0 ? chunks.with(i, { starts: rest, sum: sum - back }) : chunks.toSpliced(i, 1)
        // Of the first chunk only such as are gone may be left, or none.
        if (rest.length > 0) i++
        else if (i === 0) gone = 0
      }
      const reduced = (list: List | undefined): List | undefined => {
        if (list === undefined || list.at < at || left === 0) return list
        const less = list.at === at ? Math.min(left, list.cost) : 0
        left -= less
        if (less === list.cost) length--
        const next = reduced(list.next)
        return less === list.cost ? next : { at: list.at, cost: list.cost - less, next }
      }
      const latest = reduced(state.latest)
      return { chunks, gone, latest, length, sum: state.sum - (cost - left) }
    },
    remaining: (state, now) => Math.max(0, limit - since(state, now, per).sum),
    adopt: (state) => state,
    // The starts of cancelled calls stay in the log and cost nothing.
    isInitial: (state, now) => state.sum === 0 || newest(state) + per <= now,
    isUnspent: (state, now) => state.sum === 0 || newest(state) + per <= now
  }
}
