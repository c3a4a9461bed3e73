/**
 * Detects calls that wait for permits that their own fiber holds.
 */
import type { Call } from "./backend.ts"
import { type Limiter, newcomer } from "./limiter.ts"
import * as Pool from "./pool.ts"
import * as Time from "./time.ts"

/** Maximum number of holders that are examined. */
const mostHolders = 100

/**
 * Finds the pool whose permits a call would wait for although its own fiber holds them.
 *
 * With `onReentry: "die"` only if the call would certainly wait forever: it demands more than the free permits and
 * those of all other holders, and only its fiber can end what that fiber holds. (An update may still raise the limit.)
 * With "bypass" also if the head of the queue, and thus this call behind it, waits for permits that the fiber holds. Of
 * several pools one with "die" is preferred.
 */
export const ownPool = (limiter: Limiter, { demand, fiber }: Call): Pool.Pool | undefined => {
  const { queue } = limiter
  // A call that is first waits behind no other.
  const head = queue.ranking?.isFirst(newcomer(demand, Time.now(limiter.time))) === true ? undefined : queue.peek()
  const own = limiter.pools.filter((pool, i) => {
    const { onReentry } = pool.part
    const wanted = onReentry === "die" ? demand.pools[i]! : Math.max(demand.pools[i]!, head?.demand.pools[i] ?? 0)
    let missing = wanted - Pool.free(pool)
    let isOwn = false
    let seen = 0
    for (let holder = limiter.holders.last; holder !== undefined && missing > 0; holder = holder.prev) {
      if (++seen > mostHolders) return false
      const amount = holder.demand.pools[holder.pools.indexOf(pool)] ?? 0
      const { endedBy } = holder
      if (holder.fiber === fiber && (endedBy === "call" || (endedBy === "permit" && onReentry === "bypass"))) {
        isOwn ||= amount > 0
      } else missing -= amount
    }
    return isOwn && missing > 0
  })
  return own.find(({ part }) => part.onReentry === "die") ?? own[0]
}

/** Whether the fiber of a call runs another call that holds permits. */
export const isNested = ({ holders }: Limiter, { fiber }: Call): boolean => {
  for (let holder = holders.last; holder !== undefined; holder = holder.prev) {
    if (holder.fiber === fiber && holder.endedBy !== "scope") return true
  }
  return false
}

/** Makes the defect of a call that would wait forever. */
export const deadlock = (throttle: string, part: string): Error =>
  new Error(
    `throttle "${throttle}": deadlock: this fiber holds the permits of "${part}" that it requests. Request them once, ` +
      `outside, or set onReentry: "bypass" on that part to run nested calls without permits.`
  )
