/**
 * What a policy in shadow would have done with a call. Nobody waits in shadow: those who would are in a line that is only
 * thought of, each with the instant at which it would have started, and the meters are charged as of then.
 */
import type { ThrottleError } from "../ThrottleError.ts"
import type { Ask } from "./ask.ts"
import * as Line from "./line.ts"
import * as Refuse from "./refuse.ts"
import { dueFrom, fromNow, hasPermits, type Limiter, noise } from "./state.ts"

export interface Verdict {
  /** Nanoseconds it would have waited; undefined if nobody can know. */
  readonly wait: number | undefined
  readonly refused: ThrottleError | undefined
}

/** How many would be waiting now. */
const waiting = (limiter: Limiter, now: number): number => {
  const { late } = limiter
  while (late.head !== undefined && late.head.due <= now + noise) Line.leave(late, late.head)
  // Those above the limit would be waiting too.
  return late.size + limiter.parts.gates.reduce((most, gate) => Math.max(most, -gate.free), 0)
}

export const judge = (limiter: Limiter, ask: Ask, now: number): Verdict => {
  const never = Refuse.exceeds(limiter, ask)
  if (never !== undefined) return { wait: undefined, refused: never }
  const due = dueFrom(limiter, ask, fromNow(limiter, now))
  const short = !hasPermits(limiter, ask)
  if (due <= now + noise && !short) return { wait: 0, refused: undefined }
  const { maxQueue, maxWait, timeout } = limiter.plan
  const refused = waiting(limiter, now) >= maxQueue
    ? Refuse.queueFull
    : due - now > maxWait + noise
    ? Refuse.waitTooLong
    : due - now > timeout + noise
    ? Refuse.timedOut
    : undefined
  return {
    wait: short ? undefined : due - now,
    refused: refused === undefined ? undefined : refused(limiter, ask, now)
  }
}

/** It would start then: those behind it later. */
export const start = (limiter: Limiter, now: number, due: number): void => {
  limiter.headSince = due
  if (due > now + noise) Line.enter(limiter.late, { ahead: undefined, behind: undefined, due })
}
