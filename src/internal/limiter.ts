/**
 * The only place where Ref, Semaphore, Clock and the line meet: admit, wait, charge,
 * give back.
 *
 * How it holds together:
 *
 * - Whoever finds nobody waiting and every part ready is charged and starts in that
 *   same step. Everyone else enters the line.
 * - Only the head of the line is ever judged: is it due now, and if not, when is there
 *   reason to look again? That is when it becomes the head, when its timer ends and when
 *   permits come back ({@link judge}, {@link pump}). Nothing is taken or charged by it.
 * - A head that is due is resumed, and charges itself in the step in which its effect
 *   begins ({@link start}). Until then it stands in the line like everyone else, so
 *   an interruption before that step costs nothing, whenever it comes.
 * - Since only the head can be admitted, permits that are free stay free until it takes
 *   them: it need not reserve any while it waits for time.
 * - Nobody waits on a Semaphore: it holds the permits, but `free` is what is judged by.
 *   Permits go back to the Semaphore first and to `free` after, so the Semaphore always
 *   has what `free` promises.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type * as Semaphore from "effect/Semaphore"
import type * as Types from "effect/Types"
import type { ThrottleError } from "../ThrottleError.ts"
import { type Ask, upToDate } from "./ask.ts"
import * as Foresee from "./foresee.ts"
import { expectedToTell } from "./foresee.ts"
import * as Ledger from "./ledger.ts"
import { admit, charge, chargeIfDue, chargeIfNearlyDue, closeCharges, count, countRejection } from "./ledger.ts"
import * as Line from "./line.ts"
import * as Observe from "./observe.ts"
import * as Pauses from "./pauses.ts"
import type { Plan } from "./plan.ts"
import * as Pool from "./pool.ts"
import * as Refuse from "./refuse.ts"
import * as Shadow from "./shadow.ts"
import {
  type AnyFiber,
  type Call,
  canStart,
  type Charge,
  dueFrom,
  hasPermits,
  type Holder,
  isFree,
  type Limiter,
  makeUnsafe,
  noise,
  type Parts,
  type Tie,
  time
} from "./state.ts"
import * as Time from "./time.ts"

/** A limiter on the current clock that closes with the scope. */
export const make = (plan: Plan): Effect.Effect<Limiter, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.withFiber((fiber) =>
      Effect.succeed(
        makeUnsafe(plan, Observe.acquire(fiber.context, plan.name), Time.make(fiber.getRef(Clock.Clock)))
      )
    ),
    (limiter) =>
      Effect.sync(() => {
        close(limiter)
        Observe.release(limiter.series)
      })
  )

/** Interrupts those who wait, and all who come later: nobody is left hanging. */
export const close = (limiter: Limiter): void => {
  if (limiter.plan.shadow) Shadow.closeAll(limiter)
  limiter.closed = true
  limiter.barred = true
  for (const call of Array.from(Line.members(limiter.line))) judge(limiter, call)
}

/** Whether a call in line may wait on: an update may have left it nothing to wait for, or its wait has become too long. */
const mayWait = ({ plan }: Limiter, { ask, tooLong }: Call): boolean =>
  plan.shadow || (ask.never === undefined && tooLong === undefined)

/** The schedule has changed: calls that now expect to wait longer than they may are rejected. */
export const rejectTooLong = (limiter: Limiter, now: number): void => {
  for (const [call, wait] of Foresee.tooLong(limiter, now)) {
    call.tooLong = wait
    if (Shadow.isShadow(call)) Shadow.reject(limiter, call, () => Refuse.waitTooLong(limiter, call.ask, now, wait), now)
    else judge(limiter, call)
  }
}

/** When the head may start; Infinity while a permit is missing. */
const dueOf = (limiter: Limiter, call: Call, now: number): number => {
  // Put in shadow while it waited.
  if (limiter.plan.shadow) return now
  if (!hasPermits(limiter, call.ask)) {
    call.short = true
    call.due = undefined
    return Infinity
  }
  if (call.due === undefined) {
    const from = Math.max(call.arrival, limiter.headSince, limiter.pausedUntil, call.short ? now : -Infinity)
    call.due = dueFrom(limiter, call.ask, from)
  }
  return call.due
}

// ---------------------------------------------------------------------------------------------------------------------
// Starting and ending: the only places that charge and give back
// ---------------------------------------------------------------------------------------------------------------------

/** Starts a newcomer if it may start now. */
export const tryStart = (limiter: Limiter, ask: Ask, charges?: Array<Charge>): boolean =>
  isFree(limiter, ask) && tryStartAt(limiter, ask, limiter.parts.timings.length > 0 ? time(limiter) : 0, charges)

/** The same where nobody waits and no permit is missing, at the instant at which the clock was just read. */
export const tryStartAt = (limiter: Limiter, ask: Ask, now: number, charges?: Array<Charge>): boolean => {
  if (limiter.parts.timings.length > 0) {
    if (!(charges === undefined ? chargeIfDue(limiter, ask, now) : chargeIfNearlyDue(limiter, ask, now, charges))) {
      return false
    }
  }
  if (charges !== undefined) limiter.open++
  admit(limiter, ask)
  return true
}

/** Starts a newcomer that may start, and was due then. */
export const startDue = (limiter: Limiter, ask: Ask, now: number, due: number): void => {
  charge(limiter, ask, now, due)
  admit(limiter, ask)
}

const hold = (limiter: Limiter, ask: Ask, tie: Tie): Holder => {
  const holder: Holder = { ahead: undefined, behind: undefined, fiber: current(), ask, parts: limiter.parts, tie }
  Line.enter(limiter.holders, holder)
  return holder
}

/** Gives back what a call held, and says so to whoever waits for it. */
const end = (limiter: Limiter, holder: Holder, isCharged = true): void => {
  if (limiter.plan.shadow) {
    const now = time(limiter)
    Shadow.advance(limiter, now)
    limiter.permitsSince = now
  }
  Ledger.giveBack(limiter, holder, isCharged)
  // A head that has found its permits waits for time alone.
  if (limiter.line.head?.due === undefined) wakeHead(limiter)
}

/** The effect, holding its permits of every Semaphore while it runs. */
const withPermitsOf = <A, E, R>(
  limiter: Limiter,
  ask: Ask,
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => {
  // In shadow more are let in than there are permits.
  if (limiter.plan.shadow) return self
  const { gates } = limiter.parts
  for (let i = 0; i < gates.length; i++) self = Pool.holding(gates[i]!, ask.holdings[i]!, self)
  return self
}

// ---------------------------------------------------------------------------------------------------------------------
// The line
// ---------------------------------------------------------------------------------------------------------------------

/** A call leaves the line without a start. */
const leave = (limiter: Limiter, call: Call): void => {
  const wasHead = limiter.line.head === call
  call.state = "gone"
  Line.leave(limiter.line, call)
  count(limiter, call.ask, -1)
  if (!wasHead) return
  // One that an update has made time out did so then.
  const deadline = Math.max(call.arrival + limiter.plan.timeout, limiter.permitsSince)
  limiter.headSince = Math.max(limiter.headSince, Math.min(time(limiter), deadline))
  wakeHead(limiter)
}

/**
 * Sees to it that the head is judged soon. On the head's own scheduler and not at once,
 * since a head that is due runs as far as it can when it is resumed: at once, a long
 * line of short effects would be a deep stack.
 */
const wakeHead = (limiter: Limiter): void => {
  const head = limiter.line.head
  if (head !== undefined && head.resume !== undefined && !head.woken && !limiter.pumping) pumpSoon(limiter, head)
}

/** Something has happened that the head does not know of: it is judged again, as of now. */
export const reconsider = (limiter: Limiter): void => {
  const { head } = limiter.line
  if (head === undefined) return
  if (head.due !== undefined) {
    // What was due already stays so. What was not is not made up for.
    limiter.headSince = Math.max(limiter.headSince, Math.min(head.due, time(limiter)))
    head.due = undefined
  }
  wakeHead(limiter)
}

const pumpSoon = (limiter: Limiter, head: Call): void => {
  head.woken = true
  head.fiber.currentDispatcher.scheduleTask(() => pump(limiter), 0)
}

/** So many may start in one task; then others have their turn. */
const batch = 512

/** Judges the head, and each that becomes the head by that, until one has to wait. */
const pump = (limiter: Limiter): void => {
  if (limiter.pumping) return
  limiter.pumping = true
  let broken = true
  try {
    judgeHeads(limiter)
    broken = false
  } finally {
    limiter.pumping = false
    // An observer of a fiber that ran in here threw: the next head has not been woken meanwhile.
    if (broken) wakeHead(limiter)
  }
}

const judgeHeads = (limiter: Limiter): void => {
  let judged = 0
  for (let head = limiter.line.head; head !== undefined; head = limiter.line.head) {
    if (++judged > batch) return pumpSoon(limiter, head)
    judge(limiter, head)
    if (limiter.line.head === head) return
  }
}

/** Lets a parked call go on if it is the head and due, or refused; otherwise sees when there is reason to look again. */
export const judge = (limiter: Limiter, call: Call): void => {
  call.woken = false
  if (call.resume === undefined) return
  stopTimer(call)
  if (limiter.closed) return goOn(call, Effect.interrupt)
  if (!mayWait(limiter, call)) return goOn(call, dropOut(limiter, call, time(limiter)))
  if (limiter.line.head !== call) return
  const now = time(limiter)
  const due = dueOf(limiter, call, now)
  const deadline = call.arrival + limiter.plan.timeout
  if (due <= now + noise && due <= deadline + noise) {
    return goOn(call, isWatched(call) ? Effect.void : Effect.suspend(() => start(limiter, call)))
  }
  if (deadline <= now + noise) return goOn(call, timedOut(limiter, call, now))
  const until = due <= deadline ? due : deadline - now > shortly ? deadline - shortly : deadline
  if (until === Infinity) return
  // A fiber of its own, because a sleep can only be cut short by interrupting the fiber that sleeps.
  const timer = Effect.runForkWith(call.fiber.context)(limiter.time.clock.sleep(sleepFor(until - now)))
  // A clock may sleep no time at all.
  if (timer.pollUnsafe() !== undefined) return pumpSoon(limiter, call)
  call.timer = timer
  timer.addObserver(() => {
    if (call.timer === timer) pump(limiter)
  })
}

const goOn = (call: Call, effect: Effect.Effect<unknown, unknown, unknown>): void => {
  const { resume } = call
  call.resume = undefined
  resume!(effect)
}

const stopTimer = (call: Call): void => {
  const { timer } = call
  call.timer = undefined
  timer?.interruptUnsafe()
}

/**
 * Parks the call's fiber until it is the head and due; it stays in the line. Parking and
 * judging are one step, so no wake falls between them. What an interruption leaves behind
 * is cleared away by {@link giveUp}.
 *
 * It is resumed with the step that starts it. A continuation would be one more thing that
 * every parked fiber keeps alive, and a third of what a wait costs is the garbage
 * collector copying such things. (A wait that is watched has one: its span ends first.)
 */
const turn = (limiter: Limiter, call: Call): Effect.Effect<any, any, any> =>
  Effect.callback((resume) => {
    call.resume = resume
    judge(limiter, call)
  })

/**
 * The last part of the sleep until a deadline: 0.125 ms. What else is to happen at that instant was arranged before it
 * begins, as a rule, and so happens first: a call whose permit comes back exactly at its deadline starts.
 */
const shortly = 125e3

/** How long to sleep for something due in so many nanoseconds. */
const sleepFor = (nanos: number): Duration.Duration => {
  const whole = Math.max(1, Math.floor(nanos / 1e3 + 0.1)) * 1e3
  // Eighths of a millisecond add up exactly. For other fractions a nanosecond less makes sure that a sum is not too late.
  return Duration.millis((whole % 125e3 === 0 ? whole : whole - 1) / 1e6)
}

// ---------------------------------------------------------------------------------------------------------------------
// Calls
// ---------------------------------------------------------------------------------------------------------------------

export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/**
 * Runs the effect when its turn comes. To be called in a step of the fiber that will run
 * it: where nothing is held, nobody waits and every part is ready, this step is all there
 * is, no hook, no generator, nothing to clean up.
 */
export const begin = <A, E, R>(
  limiter: Limiter,
  ask: Ask,
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | ThrottleError, R> =>
  limiter.parts.gates.length === 0 && tryStart(limiter, ask)
    ? self
    : Effect.uninterruptibleMask((restore) => beginMasked(limiter, ask, self, restore))

/**
 * Runs the effect when its turn comes, in a region that cannot be interrupted but where
 * `restore` says. So what is taken and the hook that gives it back belong together. (In
 * an interruptible region they would not: the scheduler may interrupt between two steps.)
 */
export const beginMasked = <A, E, R>(
  limiter: Limiter,
  asked: Ask,
  self: Effect.Effect<A, E, R>,
  restore: Restore
): Effect.Effect<A, E | ThrottleError, R> => {
  const ask = upToDate(limiter, asked)
  if (limiter.plan.shadow) return inShadow(limiter, ask, self, restore)
  if (tryStart(limiter, ask)) return thenEnd(limiter, ask, withPermitsOf(limiter, ask, restore(self)))
  const call = arrive(limiter, ask, self)
  if (Effect.isEffect(call)) return restore(call)
  return Effect.onExitPrimitive(restore(awaitTurn(limiter, call)), () => {
    const told = call.state === "waiting" ? giveUp(limiter, call) : undefined
    if (call.state === "started" && call.ask.holds) end(limiter, call)
    limiter.whenOver?.()
    return told
  }, true)
}

/** Runs the effect if it may start at once; otherwise does not run it at all. */
export const runIfAvailable = <A, E, R>(
  limiter: Limiter,
  asked: Ask,
  self: Effect.Effect<A, E, R>
): Effect.Effect<Option.Option<A>, E | ThrottleError, R> =>
  Effect.uninterruptibleMask((restore) => runIfAvailableMasked(limiter, asked, self, restore))

/** The same in a region that cannot be interrupted but where `restore` says. */
export const runIfAvailableMasked = <A, E, R>(
  limiter: Limiter,
  asked: Ask,
  self: Effect.Effect<A, E, R>,
  restore: Restore
): Effect.Effect<Option.Option<A>, E | ThrottleError, R> => {
  const ask = upToDate(limiter, asked)
  if (limiter.plan.shadow && !limiter.closed) {
    const now = time(limiter)
    Shadow.advance(limiter, now)
    // In force it would have given none, and that is not counted.
    return ask.never !== undefined || canStart(limiter, ask, now)
      ? inShadow(limiter, ask, Effect.asSome(self), restore)
      : restore(Effect.asSome(self))
  }
  if (tryStart(limiter, ask)) return thenEnd(limiter, ask, withPermitsOf(limiter, ask, restore(Effect.asSome(self))))
  if (limiter.closed) return Effect.interrupt
  const never = Refuse.exceeds(limiter, ask)
  return never === undefined ? Effect.succeedNone : restore(reject(limiter, current(), ask, never, 0))
}

/** What a call holds until it is given back, and what it was charged, which may be settled until then. */
export interface Grant {
  readonly charges: Array<Charge>
  /** The permits of its Semaphores. */
  readonly permits: ReadonlyArray<{ readonly semaphore: Semaphore.Semaphore; readonly amount: number }>
  readonly holder: Holder | undefined
  /** The call of a policy that was in shadow when it began. */
  readonly shadow: Shadow.Shadow | undefined
  open: boolean
  settled: boolean
}

const nothing: Grant = { charges: [], permits: [], holder: undefined, shadow: undefined, open: false, settled: true }

/**
 * Takes its permits until the scope closes. `granted` is told in a region
 * that cannot be interrupted, also where the call is interrupted as it starts: whoever takes permits of several limiters knows
 * of all that it has to cancel.
 */
export const takeScoped = (
  limiter: Limiter,
  asked: Ask,
  tie: Tie = "scope",
  granted?: (grant: Grant) => void
): Effect.Effect<Grant, ThrottleError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) => {
    const ask = upToDate(limiter, asked)
    const charges: Array<Charge> = []
    const holding = () => ask.holds ? hold(limiter, ask, tie) : undefined
    if (limiter.plan.shadow && !limiter.closed) {
      const { call, told } = arriveInShadow(limiter, ask, charges, tie)
      const kept = call.state === "gone"
        ? Effect.succeed(nothing)
        : keep(limiter, { ...nothing, charges, shadow: call, open: true, settled: false }, granted)
      return told === undefined ? kept : Effect.tap(kept, () => restore(told))
    }
    const permits = permitsOf(limiter.parts, ask)
    const granting = (permits: Grant["permits"], holder: Holder | undefined): Grant => ({
      ...nothing,
      charges,
      permits,
      holder,
      open: true,
      settled: false
    })
    if (tryStart(limiter, ask, charges)) return keep(limiter, granting(permits, holding()), granted)
    const call = arrive(limiter, ask, Effect.void, charges, tie)
    if (Effect.isEffect(call)) return Effect.as(restore(call), nothing)
    // The Semaphores lend their permits for a moment at the start, and then for good: `free` keeps them for this call.
    const admitted = Effect.onExitPrimitive(restore(awaitTurn(limiter, call)), (exit) => {
      if (call.state === "waiting") return giveUp(limiter, call)
      if (call.state !== "started" || Exit.isSuccess(exit)) return undefined
      if (granted !== undefined) {
        // Its Semaphores have their permits back; the rest is for whoever is told to give back.
        granted(granting([], call.ask.holds ? call : undefined))
        return undefined
      }
      closeCharges(limiter, charges)
      if (call.ask.holds) end(limiter, call)
      return undefined
    }, true)
    return Effect.flatMap(
      admitted,
      () =>
        keep(
          limiter,
          granting(call.startedInShadow ? [] : permitsOf(call.parts, call.ask), call.ask.holds ? call : undefined),
          granted
        )
    )
  })

const permitsOf = ({ gates }: Parts, ask: Ask): Grant["permits"] =>
  gates.flatMap(({ semaphore }, i) => ask.holdings[i]! > 0 ? [{ semaphore, amount: ask.holdings[i]! }] : [])

/** Takes the Semaphores' permits, which are there, and promises all of it back to the scope. */
const keep = (
  limiter: Limiter,
  grant: Grant,
  granted: ((grant: Grant) => void) | undefined
): Effect.Effect<Grant, never, Scope.Scope> => {
  const given = Effect.suspend(() => {
    granted?.(grant)
    return Effect.flatMap(
      Effect.scope,
      (scope) => Effect.as(Scope.addFinalizerExit(scope, (exit) => giveBack(limiter, grant, true, exit)), grant)
    )
  })
  // They are there: the Semaphore has at least what is held, and `free` keeps these for this call.
  return grant.permits.length === 0
    ? given
    : Effect.andThen(
      Effect.forEach(grant.permits, ({ amount, semaphore }) => semaphore.take(amount), { discard: true }),
      given
    )
}

/**
 * Gives back what a call holds, if it still does: at once, but for the permits of Semaphores. `isCharged`: whether spacing
 * from the end counts from now.
 */
export const giveBack = (
  limiter: Limiter,
  grant: Grant,
  isCharged: boolean,
  exit: Exit.Exit<unknown, unknown> = Exit.void
): Effect.Effect<void> => {
  if (!grant.open) return Effect.void
  grant.open = false
  if (grant.shadow !== undefined) {
    endInShadow(limiter, grant.shadow, exit)
    return Effect.void
  }
  closeCharges(limiter, grant.charges)
  const over = () => {
    if (grant.holder !== undefined) end(limiter, grant.holder, isCharged)
    limiter.whenOver?.()
  }
  if (grant.permits.length > 0) {
    // The Semaphores first, as ever.
    return Effect.andThen(
      Effect.forEach(grant.permits, ({ amount, semaphore }) => semaphore.release(amount), { discard: true }),
      Effect.sync(over)
    )
  }
  over()
  return Effect.void
}

/** The effect, and after it what it held given back. */
const thenEnd = <A, E, R>(limiter: Limiter, ask: Ask, self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
  if (!ask.holds) return self
  const holder = hold(limiter, ask, "call")
  return Effect.onExitPrimitive(self, () => {
    end(limiter, holder)
    limiter.whenOver?.()
    return undefined
  }, true)
}

/** A call that cannot start at once: it enters the line, or it is refused or interrupted. */
const arrive = (
  limiter: Limiter,
  ask: Ask,
  self: Effect.Effect<any, any, any>,
  charges?: Array<Charge>,
  tie: Tie = "call"
): Call | Effect.Effect<any, ThrottleError> => {
  if (limiter.closed) return Effect.interrupt
  const fiber = current()
  const now = time(limiter)
  const refused = refuse(limiter, ask, now)
  if (refused !== undefined) return reject(limiter, fiber, ask, refused, 0)
  const own = limiter.plan.timeout === Infinity ? reentered(limiter, ask, fiber) : undefined
  if (own === undefined) return enter(limiter, ask, self, fiber, now, charges, tie)
  if (own.nested === "die") return Effect.die(new Error(deadlock(limiter, own)))
  countPassed(limiter)
  return self as Effect.Effect<any, any>
}

const countPassed = ({ counters, series }: Limiter): void => {
  counters.admitted++
  series.admitted++
}

/** So many holders are looked at to find out whether a fiber waits for itself. */
const mostSeen = 100

/**
 * The part whose permits this fiber asks for and holds itself. "die" only where it is certain that the call would wait for
 * ever: it asks for more than is free and all others hold, and what this fiber holds ends with this fiber and nothing else.
 * (An update may still raise the limit.) "pass" also where the head of the line, and so this call behind it, waits for
 * what this fiber holds. Where one of several parts says "die", that one.
 */
const reentered = (limiter: Limiter, ask: Ask, fiber: AnyFiber): Pool.Pool | undefined => {
  const own = limiter.parts.gates.filter((pool, i) => {
    const asked = ask.holdings[i]!
    const wanted = pool.nested === "die" ? asked : Math.max(asked, limiter.line.head?.ask.holdings[i] ?? 0)
    let missing = wanted - pool.free
    let isOwn = false
    let seen = 0
    for (let holder = limiter.holders.tail; holder !== undefined && missing > 0; holder = holder.ahead) {
      if (++seen > mostSeen) return false
      const amount = holder.ask.holdings[holder.parts.gates.indexOf(pool)] ?? 0
      if (holder.fiber === fiber && (holder.tie === "call" || (holder.tie === "permit" && pool.nested === "pass"))) {
        isOwn ||= amount > 0
      } else missing -= amount
    }
    return isOwn && missing > 0
  })
  return own.find(({ nested }) => nested === "die") ?? own[0]
}

const deadlock = (limiter: Limiter, gate: Pool.Pool): string =>
  `throttle "${limiter.plan.name}": this fiber holds the permits of "${gate.name}" that it asks for, and would wait for ` +
  `itself for ever. Ask once, outside; or construct the part with nested: "pass", and what is nested runs without asking.`

/** The fiber whose step this is. */
const current = (): AnyFiber => Fiber.getCurrent()!

/** A call that has to wait, of which nobody hears. */
const waiter = (
  limiter: Limiter,
  ask: Ask,
  fiber: AnyFiber,
  now: number,
  charges: Array<Charge> | undefined,
  tie: Tie
): Call => ({
  ahead: undefined,
  behind: undefined,
  ask,
  parts: limiter.parts,
  fiber,
  arrival: now,
  pausedBefore: Pauses.upTo(limiter.pauses, now),
  traced: false,
  heard: false,
  queued: 0,
  expected: undefined,
  self: Effect.void,
  tie,
  charges,
  state: "waiting",
  startedInShadow: false,
  tooLong: undefined,
  due: undefined,
  short: false,
  resume: undefined,
  woken: false,
  timer: undefined
})

const enter = (
  limiter: Limiter,
  ask: Ask,
  self: Effect.Effect<any, any, any>,
  fiber: AnyFiber,
  now: number,
  charges: Array<Charge> | undefined,
  tie: Tie
): Call => {
  const traced = fiber.cache.tracerEnabled
  const heard = Observe.isHeard(fiber)
  const call: Types.Mutable<Call> = waiter(limiter, ask, fiber, now, charges, tie)
  call.self = self
  call.traced = traced
  call.heard = heard
  call.queued = limiter.line.size + 1
  // Before it enters: it expects to wait for the others, not for itself.
  if (traced || heard) call.expected = expectedToTell(limiter, ask, now)
  Line.enter(limiter.line, call)
  count(limiter, ask, 1)
  return call
}

const isWatched = (call: Call): boolean => call.traced || call.heard

/** From the line to the end of the call's effect. */
const awaitTurn = (limiter: Limiter, call: Call): Effect.Effect<any, any, any> =>
  isWatched(call) ? Effect.flatMap(watchedTurn(limiter, call), () => start(limiter, call)) : turn(limiter, call)

/** Starts the head: what it runs follows the charge in the same step. If it is not due after all, it waits on. */
const start = (limiter: Limiter, call: Call): Effect.Effect<any, any, any> => {
  const now = time(limiter)
  if (!mayWait(limiter, call)) return dropOut(limiter, call, now)
  const due = limiter.closed ? Infinity : dueOf(limiter, call, now)
  if (due > now + noise) {
    return isWatched(call) ? Effect.flatMap(turn(limiter, call), () => start(limiter, call)) : turn(limiter, call)
  }
  Ledger.startHead(limiter, call, now, due)
  // Decided here and not later: an update may come before it has its permits of the Semaphores.
  call.startedInShadow = limiter.plan.shadow
  wakeHead(limiter)
  const told = tellWaited(limiter, call, "Admitted")
  // With its permits in hand, for an observer may take its time.
  return withPermitsOf(limiter, call.ask, told === undefined ? call.self : Effect.andThen(told, call.self))
}

/** The wait with its span around it, after telling of it. */
const watchedTurn = (limiter: Limiter, call: Call): Effect.Effect<any, any, any> => {
  const wait = call.traced
    ? Observe.withWaitSpan(turn(limiter, call), () => ({
      throttle: limiter.plan.name,
      policy: limiter.plan.description,
      cost: call.ask.cost,
      queued: call.queued,
      expected: millis(call.expected),
      waited: waited(limiter, call),
      ...paused(limiter, call, time(limiter))
    }))
    : turn(limiter, call)
  if (!call.heard) return wait
  const told = Observe.tell(call.fiber, "Waiting", () => ({
    _tag: "Waiting",
    throttle: limiter.plan.name,
    policy: limiter.plan.description,
    cost: call.ask.cost,
    queued: call.queued,
    ...(call.expected === undefined ? undefined : { expected: millis(call.expected)! }),
    ...paused(limiter, call, Infinity)
  }))
  return told === undefined ? wait : Effect.andThen(told, wait)
}

const millis = (nanos: number | undefined): number | undefined => nanos === undefined ? undefined : nanos / 1e6

/** Milliseconds since it arrived. */
const waited = (limiter: Limiter, call: Call): number => (time(limiter) - call.arrival) / 1e6

/** For how many milliseconds of its wait, until then, there was a pause; nothing to tell where there was none. */
const paused = (limiter: Limiter, call: Call, to: number) => Pauses.attribute(limiter.pauses, call.pausedBefore, to)

const tellWaited = (limiter: Limiter, call: Call, tag: "Admitted" | "Interrupted"): Effect.Effect<void> | undefined =>
  call.heard
    ? Observe.tell(call.fiber, tag, () => ({
      _tag: tag,
      throttle: limiter.plan.name,
      policy: limiter.plan.description,
      cost: call.ask.cost,
      waited: waited(limiter, call),
      ...paused(limiter, call, time(limiter))
    }))
    : undefined

/** A call that was interrupted while it waited. */
const giveUp = (limiter: Limiter, call: Call): Effect.Effect<void> | undefined => {
  call.resume = undefined
  stopTimer(call)
  leave(limiter, call)
  limiter.counters.interrupted++
  limiter.series.interrupted++
  return tellWaited(limiter, call, "Interrupted")
}

// ---------------------------------------------------------------------------------------------------------------------
// In shadow: nobody waits, nobody is refused
// ---------------------------------------------------------------------------------------------------------------------

const inShadow = <A, E, R>(
  limiter: Limiter,
  ask: Ask,
  self: Effect.Effect<A, E, R>,
  restore: Restore
): Effect.Effect<A, E, R> => {
  if (limiter.closed) return Effect.interrupt
  const { call, told } = arriveInShadow(limiter, ask)
  const effect = restore(told === undefined ? self : Effect.andThen(told, self))
  if (call.state === "gone" || (call.state === "started" && !ask.holds)) return effect
  return Effect.onExitPrimitive(effect, (exit) => {
    endInShadow(limiter, call, exit)
    return undefined
  }, true)
}

/** Counts a call and tells of it, as if the policy were in force. */
const arriveInShadow = (limiter: Limiter, ask: Ask, charges?: Array<Charge>, tie: Tie = "call") => {
  const fiber = current()
  const now = time(limiter)
  Shadow.advance(limiter, now)
  const queued = limiter.line.size + 1
  const expected = ask.never === undefined && Observe.isHeard(fiber) ? expectedToTell(limiter, ask, now) : undefined
  const call: Shadow.Shadow = {
    ...waiter(limiter, ask, fiber, now, charges, tie),
    queued,
    expected,
    startedAt: Infinity,
    later: []
  }
  if (canStart(limiter, ask, now)) {
    Shadow.startAtOnce(limiter, call, now)
    return { call, told: undefined }
  }
  const refused = refuse(limiter, ask, now)
  if (refused !== undefined) {
    call.state = "gone"
    return { call, told: countRejection(limiter, fiber, ask, refused, 0) }
  }
  if (limiter.plan.timeout === Infinity && reentered(limiter, ask, fiber)?.nested === "pass") {
    call.state = "gone"
    countPassed(limiter)
    return { call, told: undefined }
  }
  Shadow.wait(limiter, call)
  const told = Observe.tell(fiber, "Waiting", () => ({
    _tag: "Waiting",
    throttle: limiter.plan.name,
    policy: limiter.plan.description,
    cost: ask.cost,
    shadow: true,
    queued,
    ...(expected === undefined ? undefined : { expected: millis(expected)! })
  }))
  return { call, told }
}

/** What was in shadow when it began ends; by then the policy may be in force. */
const endInShadow = (limiter: Limiter, call: Shadow.Shadow, exit: Exit.Exit<unknown, unknown>): void => {
  Shadow.end(limiter, call, exit)
  if (!limiter.plan.shadow) reconsider(limiter)
  limiter.whenOver?.()
}

// ---------------------------------------------------------------------------------------------------------------------
// Refusing
// ---------------------------------------------------------------------------------------------------------------------

/** The error of a call that cannot start at once and may not wait either; undefined if it may. */
const refuse = (limiter: Limiter, ask: Ask, now: number): ThrottleError | undefined => {
  switch (Refuse.reasonOf(limiter, ask, now)) {
    case "PermitsExceedCapacity":
      return Refuse.exceeds(limiter, ask)
    case "QueueFull":
      return Refuse.queueFull(limiter, ask, now)
    case "WaitTooLong":
      return Refuse.waitTooLong(limiter, ask, now)
    case undefined:
      return undefined
  }
}

export const reject = (
  limiter: Limiter,
  fiber: AnyFiber,
  ask: Ask,
  error: ThrottleError,
  waited: number
): Effect.Effect<never, ThrottleError> => {
  const told = countRejection(limiter, fiber, ask, error, waited)
  return told === undefined ? Effect.fail(error) : Effect.andThen(told, Effect.fail(error))
}

/** The head's time is up: out of the line at once, so that what it is told is about those who remain. */
const timedOut = (limiter: Limiter, call: Call, now: number): Effect.Effect<never, ThrottleError> => {
  leave(limiter, call)
  return reject(limiter, call.fiber, call.ask, Refuse.timedOut(limiter, call.ask, now), waited(limiter, call))
}

/** It may wait no longer. */
const dropOut = (limiter: Limiter, call: Call, now: number): Effect.Effect<never, ThrottleError> => {
  leave(limiter, call)
  const error = Refuse.exceeds(limiter, call.ask) ?? Refuse.waitTooLong(limiter, call.ask, now, call.tooLong)
  return reject(limiter, call.fiber, call.ask, error, waited(limiter, call))
}

// ---------------------------------------------------------------------------------------------------------------------
// Pausing
// ---------------------------------------------------------------------------------------------------------------------

/** Nobody starts for so many nanoseconds; a pause that lasts longer stays as it is, and is not told of again. */
export const pause = (limiter: Limiter, nanos: number): Effect.Effect<void> => {
  const now = time(limiter)
  Shadow.advance(limiter, now)
  const until = now + nanos
  if (until <= limiter.pausedUntil) return Effect.void
  Pauses.extend(limiter.pauses, now, until)
  limiter.pausedUntil = until
  limiter.barred = true
  // What was late before a pause is not made up for after it.
  limiter.lateUntil = -Infinity
  rejectTooLong(limiter, now)
  reconsider(limiter)
  // In shadow it holds nobody back.
  if (limiter.plan.shadow) return Effect.void
  return Observe.tellPaused(current(), () => ({
    throttle: limiter.plan.name,
    policy: limiter.plan.description,
    ...(nanos === Infinity ? undefined : { wait: nanos / 1e6 })
  })) ?? Effect.void
}

export const resume = (limiter: Limiter): void => {
  const now = time(limiter)
  Shadow.advance(limiter, now)
  Pauses.end(limiter.pauses, now)
  limiter.pausedUntil = -Infinity
  reconsider(limiter)
}

// ---------------------------------------------------------------------------------------------------------------------
// Asking
// ---------------------------------------------------------------------------------------------------------------------

/** @see Throttle.Statistics */
export interface Statistics {
  /** Calls let in. */
  readonly admitted: number
  /** Calls refused, by reason. */
  readonly rejected: { readonly [R in Observe.Rejection]: number }
  /** Calls interrupted while they waited. */
  readonly interrupted: number
  /** Calls waiting now. */
  readonly waiting: number
  /** Calls holding permits now; 0 for policies that only decide by time. */
  readonly running: number
  /** How long all admitted calls waited together. */
  readonly waited: Duration.Duration
  /** The longest of these waits. */
  readonly longestWait: Duration.Duration
}

/** Of a limiter in shadow: of what would have happened until now. */
export const statisticsNow = (limiter: Limiter): Effect.Effect<Statistics> =>
  Effect.suspend(() => {
    Shadow.advance(limiter, time(limiter))
    return statistics(limiter)
  })

/** How long a newcomer would wait; none where nobody can know, and where it would be for ever. */
export const nextAvailable = (limiter: Limiter, ask: Ask): Option.Option<Duration.Duration> => {
  Shadow.advance(limiter, time(limiter))
  return Foresee.nextAvailable(limiter, ask)
}

export const statistics = (limiter: Pick<Limiter, "counters">): Effect.Effect<Statistics> =>
  Effect.sync(() => {
    const { longestWait, rejected, waited, ...counters } = limiter.counters
    return {
      ...counters,
      rejected: { ...rejected },
      waited: Duration.millis(waited / 1e6),
      longestWait: Duration.millis(longestWait / 1e6)
    }
  })
