/**
 * What a policy in shadow would have done: its line, played through in the order of time.
 *
 * Every call in shadow runs at once. The limiter besides keeps the line that would have formed: a call that would have
 * waited stands in it, starts when the policy would have let it start, and ends as much later as it really ran. None of
 * this needs a timer: whenever something asks the limiter or changes it, what would have happened since the last time is
 * played through first ({@link advance}). What a call does after its
 * start is on the agenda ({@link after}).
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { ThrottleError } from "../ThrottleError.ts"
import * as Agenda from "./agenda.ts"
import { type Ask, upToDate } from "./ask.ts"
import * as Ledger from "./ledger.ts"
import * as Line from "./line.ts"
import * as Refuse from "./refuse.ts"
import { type Call, dueFrom, hasPermits, type Limiter, noise, time } from "./state.ts"

/** A call of a policy in shadow, which runs whatever becomes of it here. */
export interface Shadow extends Call {
  /** When it would have started. */
  startedAt: number
  /** What it did so long after its real start, and will do so long after this one. */
  readonly later: Array<{ readonly nanos: number; readonly action: (at: number) => void }>
}

export const isShadow = (call: Call): call is Shadow => "later" in call

/** Where `maxQueue` does not say how many may wait, no more than this would; a call beyond them counts as admitted. */
const mostWaiting = 10_000

/** When the head would start; Infinity while a permit is missing. */
const dueOf = (limiter: Limiter, head: Call): number => {
  if (!hasPermits(limiter, head.ask)) {
    head.short = true
    head.due = undefined
    return Infinity
  }
  return head.due ??= dueFrom(
    limiter,
    head.ask,
    Math.max(head.arrival, limiter.headSince, limiter.pausedUntil, head.short ? limiter.permitsSince : -Infinity)
  )
}

/** Plays through what would have happened until now: at one instant first ends, then starts, then timeouts. */
export const advance = (limiter: Limiter, now: number): void => {
  if (!limiter.plan.shadow) return
  for (;;) {
    // A call that waited when the policy went into shadow starts by itself, in one of the next steps.
    const head = limiter.line.head === undefined || isShadow(limiter.line.head) ? limiter.line.head : undefined
    const due = head === undefined ? Infinity : dueOf(limiter, head)
    const deadline = head === undefined ? Infinity : head.arrival + limiter.plan.timeout
    const starts = due <= deadline + noise
    // An update may have brought the deadline into the past: then it times out at the update.
    const leaves = starts ? due : Math.max(deadline, limiter.permitsSince)
    const next = limiter.agenda.heap[0]?.at ?? Infinity
    const first = Math.min(leaves, next)
    if (first > now + noise || first === Infinity) break
    if (next <= first + noise) act(limiter, now)
    else if (starts) start(limiter, head!, due)
    else timeOut(limiter, head!, leaves)
  }
  if (limiter.line.size === 0 && limiter.agenda.heap.length === 0) limiter.series.behind.delete(limiter)
}

/** Does what is next on the agenda: at its instant, but not later than now. */
const act = (limiter: Limiter, now: number): void => {
  const { action, at } = Agenda.next(limiter.agenda)!
  action!(Math.min(at, now))
}

/** Puts something on the agenda. The numbers of the limiter are not up to date until it is done. */
const schedule = (limiter: Limiter, at: number, action: (at: number) => void): void => {
  Agenda.enter(limiter.agenda, at, action)
  noteBehind(limiter)
}

const noteBehind = (limiter: Limiter): void => {
  const { behind } = limiter.series
  if (!behind.has(limiter)) behind.set(limiter, () => advance(limiter, time(limiter)))
}

const start = (limiter: Limiter, call: Shadow, at: number): void => {
  call.startedAt = at
  Ledger.startHead(limiter, call, at, at)
  for (const { action, nanos } of call.later) schedule(limiter, at + nanos, action)
}

const timeOut = (limiter: Limiter, call: Shadow, at: number): void =>
  reject(limiter, call, () => Refuse.timedOut(limiter, call.ask, at), at)

/** A call that would be rejected while it waits. */
export const reject = (limiter: Limiter, call: Shadow, error: () => ThrottleError, at: number): void => {
  leave(limiter, call, at)
  const told = Ledger.countRejection(limiter, call.fiber, call.ask, error(), (at - call.arrival) / 1e6)
  // In a fiber of its own: that of the call may be done, and this one has nothing to do with it.
  if (told !== undefined) Effect.runForkWith(call.fiber.context)(told)
}

const leave = (limiter: Limiter, call: Shadow, at: number): void => {
  call.state = "gone"
  if (limiter.line.head === call) limiter.headSince = Math.max(limiter.headSince, at)
  Line.leave(limiter.line, call)
  Ledger.count(limiter, call.ask, -1)
}

/** A call that would start at once. */
export const startAtOnce = (limiter: Limiter, call: Shadow, now: number): void => {
  call.state = "started"
  call.startedAt = now
  Ledger.charge(limiter, call.ask, now, now, call.charges)
  if (call.charges !== undefined) limiter.open++
  Ledger.admit(limiter, call.ask)
  if (call.ask.holds) Line.enter(limiter.holders, call)
}

/** A call that would wait. */
export const wait = (limiter: Limiter, call: Shadow): void => {
  if (limiter.plan.maxQueue === Infinity && limiter.line.size >= mostWaiting) {
    call.state = "gone"
    limiter.counters.admitted++
    limiter.series.admitted++
    return
  }
  Line.enter(limiter.line, call)
  Ledger.count(limiter, call.ask, 1)
  noteBehind(limiter)
}

/** Does something so long after its start as it is now after its real one. */
const after = (limiter: Limiter, call: Shadow, action: (at: number) => void): void => {
  const now = time(limiter)
  advance(limiter, now)
  if (call.state === "gone") return
  const nanos = now - call.arrival
  if (call.state === "waiting") call.later.push({ nanos, action })
  else if (!limiter.plan.shadow) action(now)
  else {
    schedule(limiter, call.startedAt + nanos, action)
    advance(limiter, now)
  }
}

/** The call's effect has really ended. One that was interrupted would have been interrupted while it waited, too. */
export const end = (limiter: Limiter, call: Shadow, exit: Exit.Exit<unknown, unknown>): void => {
  advance(limiter, time(limiter))
  if (call.state === "waiting" && Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)) {
    return interrupt(limiter, call)
  }
  close(limiter, call, true)
}

const interrupt = (limiter: Limiter, call: Shadow): void => {
  leave(limiter, call, time(limiter))
  limiter.counters.interrupted++
  limiter.series.interrupted++
}

/** Gives back what it would hold, and settles it no more. */
export const close = (limiter: Limiter, call: Shadow, isCharged: boolean): void =>
  after(limiter, call, (at) => {
    if (call.charges !== undefined) Ledger.closeCharges(limiter, call.charges)
    if (call.ask.holds) Ledger.giveBack(limiter, call, isCharged, at)
    if (limiter.plan.shadow) limiter.permitsSince = at
  })

export const settle = (limiter: Limiter, call: Shadow, actual: Ask): void =>
  after(limiter, call, (at) => {
    // By then an update may have given the parts another order.
    Ledger.settleCharges(limiter, call.charges!, upToDate(limiter, actual), at)
    rejudge(limiter, at)
  })

export const cancel = (limiter: Limiter, call: Shadow): void => {
  after(limiter, call, (at) => {
    Ledger.cancelCharges(call.charges!, at)
    rejudge(limiter, at)
  })
  close(limiter, call, false)
}

/** What was due already stays so; what was not is worked out anew. */
const rejudge = (limiter: Limiter, at: number): void => {
  const { head } = limiter.line
  if (head?.due === undefined) return
  limiter.headSince = Math.max(limiter.headSince, Math.min(head.due, at))
  head.due = undefined
}

/**
 * The policy is in force from now on: those that would wait run already, and count as admitted; what has ended holds
 * nothing any more.
 */
export const putInForce = (limiter: Limiter, now: number): void => {
  advance(limiter, now)
  while (limiter.agenda.heap.length > 0) act(limiter, now)
  for (const call of Array.from(Line.members(limiter.line))) {
    if (!isShadow(call)) continue
    leave(limiter, call, -Infinity)
    call.state = "started"
    // It has run since it came: put in shadow again, it ends when it really does.
    call.startedAt = call.arrival
    if (call.charges !== undefined) limiter.open++
    Ledger.admit(limiter, call.ask)
    if (call.ask.holds) Line.enter(limiter.holders, call)
    for (const { action } of call.later) action(now)
  }
  limiter.series.behind.delete(limiter)
}

/** An update has left it nothing to wait for. */
export const rejectExcessive = (limiter: Limiter, now: number): void => {
  for (const call of Array.from(Line.members(limiter.line))) {
    const error = Refuse.exceeds(limiter, call.ask)
    if (error !== undefined && isShadow(call)) reject(limiter, call, () => error, now)
  }
}

/** The throttle's scope closes: those that would wait would be interrupted. */
export const closeAll = (limiter: Limiter): void => {
  advance(limiter, time(limiter))
  for (const call of Array.from(Line.members(limiter.line))) if (isShadow(call)) interrupt(limiter, call)
}
