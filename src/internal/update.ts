/**
 * New numbers, or new parts, for a limiter that is at work: what is spent stays spent, what is held stays held.
 */
import { askAgain, askOne } from "./ask.ts"
import { judge, reconsider, rejectTooLong } from "./limiter.ts"
import * as Line from "./line.ts"
import type { Plan } from "./plan.ts"
import * as Pool from "./pool.ts"
import * as Shadow from "./shadow.ts"
import { clockwork, type Limiter, stateOf, time } from "./state.ts"

/** Finds for each part the one it follows: of the same kind, unit and name; of several alike the first that is left. */
const successors = <A extends { readonly key: string }>(old: ReadonlyArray<A>) => {
  const left = [...old]
  return (key: string): A | undefined => {
    const i = left.findIndex((part) => part.key === key)
    return i < 0 ? undefined : left.splice(i, 1)[0]
  }
}

/** In one step: a call comes before all of it or after all of it. */
export const update = (limiter: Limiter, plan: Plan): void => {
  const now = time(limiter)
  if (plan.shadow) Shadow.advance(limiter, now)
  else if (limiter.plan.shadow) Shadow.putInForce(limiter, now)
  const formerTiming = successors(limiter.parts.timings)
  const timings = plan.timings.map((part) => {
    const former = formerTiming(part.key)
    if (former === undefined) return clockwork(part)
    former.state.ref.current = part.meter.adopt(stateOf(former), former.meter, now)
    return Object.assign(former, part, { total: 0, calls: 0 })
  })
  const formerGate = successors(limiter.parts.gates)
  const gates = plan.holdings.map((part) => {
    const former = formerGate(part.key)
    return former === undefined ? Pool.make(part) : Pool.update(former, part)
  })
  limiter.plan = { ...plan, name: limiter.plan.name }
  limiter.barred = true
  limiter.parts = { timings, gates }
  limiter.one = askOne(limiter.plan)
  limiter.permitsSince = now
  if (!plan.catchesUp) limiter.lateUntil = -Infinity
  for (const call of Line.members(limiter.line)) {
    call.ask = askAgain(limiter.plan, call.ask)
    call.parts = limiter.parts
    timings.forEach((part, i) => {
      part.total += call.ask.timings[i]!
      if (call.ask.timings[i]! > 0) part.calls++
    })
  }
  if (limiter.plan.shadow) Shadow.rejectExcessive(limiter, now)
  else {
    for (const call of Array.from(Line.members(limiter.line))) if (call.ask.never !== undefined) judge(limiter, call)
  }
  rejectTooLong(limiter, now)
  reconsider(limiter)
}
