/**
 * Lends limiters to keys with waiting calls, held permits or a pause, and takes them back afterwards.
 */
import * as Counts from "../counts.ts"
import * as Finish from "../finish.ts"
import { isRefusing, type Limiter, reset } from "../limiter.ts"
import * as Local from "../local.ts"
import * as Shadow from "../shadow.ts"
import * as Time from "../time.ts"
import * as Keyed from "./keyed.ts"

/** Maximum number of spare limiters of a kind. */
const mostSpare = 64

/** Returns the limiter of a key if it still needs one; otherwise takes it back and returns undefined. */
export const lentTo = <K>(keyed: Keyed.Keyed<K>, key: K): Keyed.Lent | undefined => {
  const lent = keyed.lent.size === 0 ? undefined : keyed.lent.get(key)
  if (lent === undefined) return undefined
  takeBackIfOver(keyed, lent)
  return lent.key === undefined ? undefined : lent
}

/** Lends a limiter to a key that has none. */
export const lend = <K>(keyed: Keyed.Keyed<K>, key: K, { charged, kind }: Keyed.Idle): Keyed.Lent => {
  const lent = kind.spare.pop() ?? make(keyed, kind)
  lent.limiter.charged.ref.current = charged
  if (keyed.phase === "draining") Finish.refuseNewcomers(lent.limiter, true)
  Keyed.setLent(keyed, key, lent)
  return lent
}

const make = <K>(keyed: Keyed.Keyed<K>, kind: Keyed.Kind): Keyed.Lent => {
  const limiter = Local.makeUnsafe(kind.plan, keyed.counts.series, keyed.time, true, keyed.counts.watchers)
  const lent: Keyed.Lent = { key: undefined, kind, limiter, users: 0 }
  limiter.afterCall = () => takeBackIfOver(keyed, lent)
  return lent
}

/** Whether a call waits, holds permits or will use a limiter. */
export const hasCalls = ({ limiter: { holders, waiters }, users }: Keyed.Lent): boolean =>
  users > 0 || waiters.size > 0 || holders.size > 0

/**
 * Takes a limiter back if its key does not need it any more. A drain of the key is over with its calls, also if something
 * else keeps the limiter, such as a pause.
 */
export const takeBackIfOver = <K>(keyed: Keyed.Keyed<K>, lent: Keyed.Lent): void => {
  if (lent.key === undefined) return
  const { kind, limiter } = lent
  if (isRefusing(limiter) && keyed.phase === "open" && !hasCalls(lent)) Finish.admitNewcomers(limiter, kind.plan)
  if (!isOver(lent)) return
  const now = Keyed.now(keyed)
  if (!isCatchingUp(limiter, now)) takeBack(keyed, lent, now)
}

/** Whether a limiter has no state but its charges: no call waits, holds permits or will use it, and no pause lasts. */
export const isOver = ({ limiter, users }: Keyed.Lent): boolean => {
  const { holders, pauses, phase, queue, simulation: { agenda }, time, unsettled, waiters } = limiter
  if (users > 0) return false
  if (phase === "shadow") Shadow.advance(limiter, Time.now(time))
  return waiters.size === 0 && holders.size === 0 && unsettled === 0 && agenda.heap.length === 0 &&
    (queue.ranking === undefined || queue.ranking.isSettled()) &&
    // Reads the clock only if the latest reading does not tell.
    (pauses.until <= time.read || pauses.until <= Time.now(time))
}

/** Whether the lateness of the latest start still matters, see `Lateness`. */
export const isCatchingUp = ({ lateness }: Limiter, now: number): boolean => lateness.until > now

/** Takes a limiter back: the key keeps its charges, the map its counts, and the limiter becomes spare. */
export const takeBack = <K>(keyed: Keyed.Keyed<K>, lent: Keyed.Lent, now: number): void => {
  const { kind, limiter } = lent
  const key = Keyed.removeLent(keyed, lent)
  Counts.add(keyed.counts.own, limiter.counts.own)
  const charged = limiter.charged.ref.current
  if (!Keyed.isInitial(kind, charged, now)) {
    Keyed.remember(keyed, Keyed.idle(key, kind, charged))
  }
  if (kind.spare.length >= mostSpare || isRefusing(limiter)) return
  reset(limiter)
  kind.spare.push(lent)
}
