/**
 * Drops keys whose state equals the initial state, and evicts keys of a full map.
 *
 * Sweeps examine two idle keys for each call, and two keys with a limiter, whose pause may have ended unnoticed. So
 * there is no timer, and all keys have been examined after half as many calls as there are keys.
 */
import * as Keyed from "./keyed.ts"
import * as Lending from "./lending.ts"

/** The number of calls for each sweep, which examines twice as many keys. */
const callsPerSweep = 16

/** Counts a call, and sweeps if it is time. */
export const countCall = <K>(keyed: Keyed.Keyed<K>): void => {
  if (++keyed.sweep.calls % callsPerSweep === 0) sweep(keyed)
}

/** Returns whether there is room for one more key, after making room if possible. */
export const makeRoom = <K>(keyed: Keyed.Keyed<K>): boolean => {
  const { maxKeys, onFull } = keyed.options
  if (Keyed.size(keyed) < maxKeys) return true
  sweep(keyed)
  return Keyed.size(keyed) < maxKeys || (onFull === "evict" && evict(keyed))
}

/** Evicts the idle key that was used longest ago. Returns whether there is room now. */
const evict = <K>(keyed: Keyed.Keyed<K>): boolean => {
  // If no key is idle, one whose lateness still matters becomes idle: better than rejecting the new key.
  if (keyed.byUse.first === undefined) sweep(keyed, true)
  const oldest = keyed.byUse.first
  if (oldest !== undefined) {
    if (!Keyed.isInitial(oldest.kind, oldest.charged, Keyed.now(keyed))) keyed.keys.evicted++
    Keyed.forget(keyed, oldest)
  }
  return Keyed.size(keyed) < keyed.options.maxKeys
}

/**
 * Examines some keys, starting where the last sweep ended. `isForced`: takes back limiters even if their lateness still
 * matters.
 */
const sweep = <K>(keyed: Keyed.Keyed<K>, isForced = false): void => {
  const { idle, lent, sweep } = keyed
  const now = Keyed.now(keyed)
  sweep.lent = look(lent, sweep.lent, (one) => {
    if (Lending.isOver(one) && (isForced || !Lending.isCatchingUp(one.limiter, now))) Lending.takeBack(keyed, one, now)
  })
  sweep.idle = look(idle, sweep.idle, (one) => {
    forgetIfInitial(keyed, one, now)
  })
}

/** Forgets an idle key whose state equals that of a key that is not remembered. */
export const forgetIfInitial = <K>(keyed: Keyed.Keyed<K>, idle: Keyed.Idle, now: number): void => {
  if (Keyed.isInitial(idle.kind, idle.charged, now)) Keyed.forget(keyed, idle)
}

/** Visits the next members of a map, starting again at its end. Returns the iterator with which to continue. */
const look = <A>(map: ReadonlyMap<unknown, A>, from: Iterator<A>, visit: (member: A) => void): Iterator<A> => {
  let iterator = from
  for (let i = 0; i < 2 * callsPerSweep && map.size > 0; i++) {
    let next = iterator.next()
    if (next.done === true) {
      iterator = map.values()
      next = iterator.next()
    }
    if (next.done === true) break
    visit(next.value)
  }
  // An old iterator would keep the deleted members of an emptied Map alive.
  return map.size === 0 ? map.values() : iterator
}
