/**
 * The line of a process: who waits, who is let in, who leaves. What is granted is told to the call's fiber, which may be
 * interrupted before it goes on: so it counts as granted only in the step in which its effect begins ({@link start}).
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Ask } from "../../internal/ask.ts"
import * as Line from "../../internal/line.ts"
import * as Observe from "../../internal/observe.ts"
import * as Pauses from "../../internal/pauses.ts"
import { noise } from "../../internal/state.ts"
import { ThrottleError, TimedOut } from "../../ThrottleError.ts"
import { about, circumstances, expectedBehind, reject } from "./refuse.ts"
import { type Call, count, type Grant, isSame, type Limiter, pausedFor, run, signal, sleepFor, time } from "./state.ts"

export const enter = (limiter: Limiter, call: Call): void => {
  Line.enter(limiter.line, call)
  count(limiter, call.ask, 1)
  if (limiter.keeper === undefined) startKeeper(limiter)
}

export const leave = (limiter: Limiter, call: Call): void => {
  const wasHead = limiter.line.head === call
  Line.leave(limiter.line, call)
  count(limiter, call.ask, -1)
  if (call.isTold) {
    limiter.told--
    limiter.counters.waiting--
    limiter.series.waiting--
  }
  if (limiter.line.size === 0) {
    limiter.keeper?.interruptUnsafe()
    limiter.keeper = undefined
  }
  if (wasHead) signal(limiter)
}

/** Parks the call's fiber until there is something to go on with. */
export const park = (limiter: Limiter, call: Call): Effect.Effect<any, any, any> =>
  Effect.callback((resume) => {
    if (call.next !== undefined) resume(call.next)
    else if (isToBeWatched(call)) resume(watched(limiter, call))
    else call.resume = resume
  })

export const goOn = (call: Call, effect: Effect.Effect<any, any, any>): void => {
  const { resume } = call
  call.resume = undefined
  if (resume === undefined) call.next = effect
  else resume(effect)
}

const isToBeWatched = (call: Call): boolean => call.isTold && !call.isWatched && (call.traced || call.heard)

/** It has to wait: those who want to hear of it do. */
export const tellToWait = (limiter: Limiter, call: Call, expected: number | undefined): void => {
  call.isTold = true
  call.queued = ++limiter.told
  call.expected = expected
  limiter.counters.waiting++
  limiter.series.waiting++
  const { resume } = call
  if (resume === undefined || !isToBeWatched(call)) return
  call.resume = undefined
  resume(Effect.suspend(() => watched(limiter, call)))
}

/** The wait with its span around it, after telling of it, and what comes then. */
const watched = (limiter: Limiter, call: Call): Effect.Effect<any, any, any> => {
  if (call.next !== undefined) return call.next
  call.isWatched = true
  const wait = call.traced
    ? Observe.withWaitSpan(park(limiter, call), () => ({
      ...about(limiter, call),
      queued: call.queued,
      ...expects(call),
      waited: waited(limiter, call),
      ...paused(limiter, call, time(limiter))
    }))
    : park(limiter, call)
  const heard = call.heard
    ? Observe.tell(call.fiber, "Waiting", () => ({
      _tag: "Waiting",
      ...about(limiter, call),
      queued: call.queued,
      ...expects(call),
      ...paused(limiter, call, Infinity)
    }))
    : undefined
  return Effect.andThen(
    heard === undefined ? wait : Effect.andThen(heard, wait),
    Effect.suspend(() => call.instead ?? start(limiter, call))
  )
}

const expects = ({ expected }: Call) => expected === undefined ? undefined : { expected: expected / 1e6 }

const paused = (limiter: Limiter, call: Call, to: number) => Pauses.attribute(limiter.pauses, call.pausedBefore, to)

const waited = (limiter: Limiter, call: Call): number => (time(limiter) - call.arrival) / 1e6

const tellWaited = (limiter: Limiter, call: Call, tag: "Admitted" | "Interrupted"): Effect.Effect<void> | undefined =>
  call.heard && call.isWatched
    ? Observe.tell(call.fiber, tag, () => ({
      _tag: tag,
      ...about(limiter, call),
      waited: waited(limiter, call),
      ...paused(limiter, call, time(limiter))
    }))
    : undefined

/** Lets a call start with what was granted to it. */
export const give = (limiter: Limiter, call: Call, grant: Grant): void => {
  leave(limiter, call)
  call.state = "granted"
  call.grant = grant
  goOn(call, call.isWatched ? Effect.void : Effect.suspend(() => start(limiter, call)))
}

/** The step in which its effect begins. */
const start = (limiter: Limiter, call: Call): Effect.Effect<any, any, any> => {
  call.state = "started"
  const grant = call.grant!
  admit(limiter, grant.ask)
  if (call.isTold) {
    const nanos = time(limiter) - call.arrival
    limiter.counters.waited += nanos
    limiter.counters.longestWait = Math.max(limiter.counters.longestWait, nanos)
    Observe.addWait(limiter.series.waits, nanos / 1e9)
  }
  const told = tellWaited(limiter, call, "Admitted")
  return told === undefined ? call.run(grant) : Effect.andThen(told, Effect.suspend(() => call.run(grant)))
}

export const admit = (limiter: Limiter, ask: Ask): void => {
  limiter.counters.admitted++
  limiter.series.admitted++
  if (!ask.holds) return
  limiter.counters.running++
  limiter.series.running++
}

/** A call that was interrupted before its effect began. What was granted to it goes to others. */
export const giveUp = (limiter: Limiter, call: Call): Effect.Effect<void> | undefined => {
  const told = tellWaited(limiter, call, "Interrupted")
  if (call.state === "waiting") leave(limiter, call)
  else pass(limiter, call.grant!)
  call.state = "gone"
  call.resume = undefined
  limiter.counters.interrupted++
  limiter.series.interrupted++
  return told
}

/** What was granted and nobody has used. */
export const pass = (limiter: Limiter, grant: Grant): void => {
  if (grant.version === undefined) return
  limiter.surplus.push(grant)
  signal(limiter)
}

/** Takes a call out of the line, refused. */
export const drop = (limiter: Limiter, call: Call, error: ThrottleError): void => {
  const inline = call.isInline && error.reason._tag === "StoreError"
  const passed = call.isTold ? waited(limiter, call) : 0
  leave(limiter, call)
  call.state = "gone"
  goOn(call, reject(limiter, call.fiber, call.ask, error, passed, inline))
}

/** Watches the deadlines, if there are any. An update of the policy starts it anew. */
export const startKeeper = (limiter: Limiter): void => {
  limiter.keeper?.interruptUnsafe()
  limiter.keeper = undefined
  if (limiter.plan.timeout === Infinity || limiter.line.size === 0) return
  const keeper = run(limiter)(keepTime(limiter))
  limiter.keeper = keeper
  // It may be over already: all of them may have been late.
  keeper.addObserver(() => {
    if (limiter.keeper === keeper) limiter.keeper = undefined
  })
}

/** Deadlines follow the line's order, so one sleeper is enough for all. */
const keepTime = (limiter: Limiter): Effect.Effect<void> =>
  Effect.gen(function*() {
    while (limiter.line.head !== undefined) {
      const { head } = limiter.line
      const deadline = head.arrival + limiter.plan.timeout
      const wait = deadline - time(limiter)
      if (wait > noise) {
        yield* limiter.clock.sleep(sleepFor(wait))
        continue
      }
      // Due exactly then is in time, unless a pause holds it back.
      const { slot } = limiter
      const isInTime = slot !== undefined && slot.due <= deadline + noise && isSame(slot.grant.ask, head.ask)
      if (isInTime && pausedFor(limiter) === 0) {
        signal(limiter)
        yield* Effect.yieldNow
        continue
      }
      const expected = expectedBehind(limiter, head.ask, time(limiter))
      drop(
        limiter,
        head,
        new ThrottleError({
          reason: new TimedOut({
            ...circumstances(limiter, head.ask, expected),
            limit: Duration.millis(limiter.plan.timeout / 1e6)
          })
        })
      )
    }
  })
