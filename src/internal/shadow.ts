/**
 * What a policy in shadow would have done with a call. Nobody waits in shadow: those who would are in a line that is only
 * thought of, each with the instant at which it would have left it, and the meters are charged as of then.
 */
import type { ThrottleError } from "../ThrottleError.ts"
import type { Ask } from "./ask.ts"
import { waiting } from "./foresee.ts"
import * as Line from "./line.ts"
import * as Refuse from "./refuse.ts"
import { dueFrom, fromNow, hasPermits, type Limiter, noise } from "./state.ts"

export interface Verdict {
  /** Nanoseconds it would have waited; undefined if nobody can know, or if it is refused. */
  readonly wait: number | undefined
  readonly refused: ThrottleError | undefined
}

export const judge = (limiter: Limiter, ask: Ask, now: number): Verdict => {
  const never = Refuse.exceeds(limiter, ask)
  if (never !== undefined) return { wait: undefined, refused: never }
  const due = dueFrom(limiter, ask, fromNow(limiter, now))
  // For permits that others hold, or until somebody ends a pause.
  const isUnknown = !hasPermits(limiter, ask) || due === Infinity
  if (due <= now + noise && !isUnknown) return { wait: 0, refused: undefined }
  const { maxQueue, maxWait, timeout } = limiter.plan
  const refuse = waiting(limiter, now) >= maxQueue
    ? Refuse.queueFull
    : due - now > maxWait + noise
    ? Refuse.waitTooLong
    : due - now > timeout + noise
    ? Refuse.timedOut
    : undefined
  return refuse === undefined
    ? { wait: isUnknown ? undefined : due - now, refused: undefined }
    : { wait: undefined, refused: refuse(limiter, ask, now) }
}

/** Where `maxQueue` does not say how many may wait, no more than this are kept in mind, and none is told to be behind more. */
const mostThoughtOf = 10_000

/** It would leave the line then, and those behind it no sooner. */
export const standInLine = (limiter: Limiter, now: number, until: number): void => {
  limiter.headSince = Math.max(limiter.headSince, until)
  // Without a bound it would grow for as long as more come than the policy allows, which is what shadow is for to find out.
  if (until > now + noise && (limiter.late.size < mostThoughtOf || limiter.plan.maxQueue < Infinity)) {
    Line.enter(limiter.late, { ahead: undefined, behind: undefined, due: until })
  }
}
