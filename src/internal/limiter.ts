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
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Ref from "effect/Ref"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { PermitsExceedCapacity, QueueFull, ThrottleError, TimedOut, WaitTooLong } from "../ThrottleError.ts"
import { type Ask, askOne, spelled } from "./ask.ts"
import * as Line from "./line.ts"
import { type Ahead, foresee, type Meter, type Wall } from "./meter/meter.ts"
import * as Observe from "./observe.ts"
import type { Holding, Plan, Timing } from "./plan.ts"

type AnyFiber = Fiber.Fiber<unknown, unknown>

interface Clockwork extends Timing {
  readonly state: Ref.Ref<unknown>
  /** What the state will be if the call that is being looked at starts. */
  next: unknown
  /** What those in line ask of this part, and how many of them do. */
  total: number
  calls: number
}

interface Gate extends Holding {
  readonly semaphore: Semaphore.Semaphore
  /** Permits that the next one may take. */
  free: number
}

export interface Limiter {
  readonly plan: Plan
  readonly clock: Clock.Clock
  readonly wall: Wall
  readonly timings: ReadonlyArray<Clockwork>
  readonly gates: ReadonlyArray<Gate>
  readonly line: Line.Line<Call>
  /** The cost of a call that names none: one permit. */
  readonly one: Ask
  readonly counters: Observe.Counters & { waited: number; longestWait: number }
  readonly series: Observe.Series
  /** Since when the present head has been the head, all on time: when the one before it was due, or gave up. */
  headSince: number
  pumping: boolean
  closed: boolean
}

/** A call that could not start at once. */
interface Call extends Line.Place<Call> {
  readonly ask: Ask
  readonly fiber: AnyFiber
  readonly arrival: number
  /** Whether the wait has a span, and whether anyone else hears of it. */
  readonly traced: boolean
  readonly heard: boolean
  /** How many waited when it arrived, itself included. */
  readonly queued: number
  /** Nanoseconds it expected to wait when it arrived; undefined where nobody hears of it or nobody knows. */
  readonly expected: number | undefined
  /** What it runs when its turn comes. */
  readonly self: Effect.Effect<any, any, any>
  state: "waiting" | "started" | "gone"
  /** When it may start; undefined until it is the head and the permits it asks for are free. */
  due: number | undefined
  /** Whether it found too few permits free when it was the head. */
  short: boolean
  /** Lets its fiber go on; set while that is parked. */
  resume: ((effect: Effect.Effect<any, any, any>) => void) | undefined
  /** Whether it is to be judged soon. */
  woken: boolean
  /** The head's timer: a fiber that sleeps. */
  timer: AnyFiber | undefined
}

/**
 * Sleeps are whole microseconds, rounded down, so that adding fractions (in here, or in
 * the clock) never makes one end just after the millisecond it was meant for. What is due
 * within this much (1 µs, in nanoseconds) is due.
 */
const noise = 1_000

export const makeUnsafe = (plan: Plan, context: Context.Context<never>, clock: Clock.Clock): Limiter => ({
  plan,
  clock,
  wall: (at) => clock.currentTimeMillisUnsafe() + (at - Number(clock.monotonicTimeNanosUnsafe())) / 1e6,
  timings: plan.timings.map((part) => ({
    ...part,
    state: Ref.makeUnsafe(part.meter.initial),
    next: undefined,
    total: 0,
    calls: 0
  })),
  gates: plan.holdings.map((part) => ({ ...part, semaphore: Semaphore.makeUnsafe(part.limit), free: part.limit })),
  line: Line.make(),
  one: askOne(plan),
  counters: { ...Observe.counters(), waited: 0, longestWait: 0 },
  series: Observe.series(context, plan.name),
  headSince: -Infinity,
  pumping: false,
  closed: false
})

/** A limiter on the current clock that closes with the scope. */
export const make = (plan: Plan): Effect.Effect<Limiter, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.withFiber((fiber) => Effect.succeed(makeUnsafe(plan, fiber.context, fiber.getRef(Clock.Clock)))),
    (limiter) => Effect.sync(() => close(limiter))
  )

/** Interrupts those who wait, and all who come later: nobody is left hanging. */
const close = (limiter: Limiter): void => {
  limiter.closed = true
  for (const call of Array.from(Line.members(limiter.line))) judge(limiter, call)
}

// ---------------------------------------------------------------------------------------------------------------------
// Deciding: reads only
// ---------------------------------------------------------------------------------------------------------------------

const time = (limiter: Limiter): number => Number(limiter.clock.monotonicTimeNanosUnsafe())

const stateOf = (part: Clockwork): unknown => part.state.ref.current

const hasPermits = (limiter: Limiter, ask: Ask): boolean => {
  for (let i = 0; i < limiter.gates.length; i++) {
    if (ask.holdings[i]! > limiter.gates[i]!.free) return false
  }
  return true
}

/** The instant, at or after `from`, at which every timing part would let it start. */
const dueFrom = (limiter: Limiter, ask: Ask, from: number): number => {
  let due = from
  for (let i = 0; i < limiter.timings.length; i++) {
    const amount = ask.timings[i]!
    const part = limiter.timings[i]!
    if (amount > 0) due = part.meter.due(stateOf(part), due, amount, limiter.wall)
  }
  return due === from || limiter.plan.rounds === 1 ? due : agreed(limiter, ask, due, limiter.timings.map(stateOf))
}

/** The same for other states than the present ones, and where the parts must be asked in turn until all agree. */
const agreed = (limiter: Limiter, ask: Ask, from: number, states: ReadonlyArray<unknown>): number => {
  let due = from
  for (let round = 0; round < limiter.plan.rounds; round++) {
    limiter.timings.forEach(({ meter }, i) => {
      if (ask.timings[i]! > 0) due = meter.due(states[i], due, ask.timings[i]!, limiter.wall)
    })
    if (due === from) break
    from = due
  }
  return due
}

/** Whether a newcomer may start now, as far as the clock is not needed to say. It never passes those who wait. */
const isFree = (limiter: Limiter, ask: Ask): boolean =>
  !limiter.closed && ask.never === undefined && limiter.line.size === 0 && hasPermits(limiter, ask)

/** When the head may start; Infinity while a permit is missing. */
const dueOf = (limiter: Limiter, call: Call, now: number): number => {
  if (!hasPermits(limiter, call.ask)) {
    call.short = true
    call.due = undefined
    return Infinity
  }
  if (call.due === undefined) {
    const from = Math.max(call.arrival, limiter.headSince, call.short ? now : -Infinity)
    call.due = dueFrom(limiter, call.ask, from)
  }
  return call.due
}

// ---------------------------------------------------------------------------------------------------------------------
// Foreseeing: what somebody who asks or is refused is told; reads only
// ---------------------------------------------------------------------------------------------------------------------

/** When a timing part alone could let a newcomer start behind all who wait; undefined beyond patience. */
const foreseen = (
  limiter: Limiter,
  ask: Ask,
  index: number,
  now: number,
  patience: number
): number | undefined => {
  const part = limiter.timings[index]!
  const meter: Meter<unknown> = part.meter
  const ahead: Ahead = { calls: part.calls, total: part.total, costs: costs(limiter, index) }
  return foresee(meter, asIfEnded(limiter, part, now), now, ask.timings[index]!, ahead, limiter.wall, patience)
}

/** Spacing from the end counts a call that runs as if it ended now: one interval for it. */
const asIfEnded = (limiter: Limiter, part: Clockwork, now: number): unknown =>
  part.chargedWhenFree !== undefined && isHeld(limiter.gates[part.chargedWhenFree]!)
    ? part.meter.charge(stateOf(part), now, 1, limiter.wall)
    : stateOf(part)

function* costs(limiter: Limiter, index: number): Generator<number> {
  for (const call of Line.members(limiter.line)) {
    const amount = call.ask.timings[index]!
    if (amount > 0) yield amount
  }
}

const isHeld = (gate: Gate): boolean => gate.free < gate.limit

/** Nanoseconds a newcomer would wait; undefined where no part can foresee it, or not as quickly as asked. */
const expectedWait = (limiter: Limiter, ask: Ask, now: number, patience = Infinity): number | undefined => {
  let expected: number | undefined
  for (let i = 0; i < limiter.timings.length; i++) {
    if (ask.timings[i] === 0) continue
    const at = foreseen(limiter, ask, i, now, patience)
    if (at === undefined) return undefined
    expected = Math.max(expected ?? 0, at - now)
  }
  return expected
}

/** Nobody goes through a longer line than this only to tell of it. */
const patienceToTell = 100

/**
 * Nanoseconds until a newcomer could start, were every permit free: all parts together and
 * the whole line played through. Parts alone would say too little, since a call waits behind
 * others for parts that it does not ask itself. 0 where that is not for time to say.
 */
const untilAvailable = (limiter: Limiter, ask: Ask, now: number): number => {
  const alone = limiter.timings.length === 1 && ask.timings[0]! > 0
  // A long line takes long to play through, and a refusal should be quick.
  if (alone || limiter.line.size > 1_000) return expectedWait(limiter, ask, now) ?? 0
  let states = limiter.timings.map((part) => asIfEnded(limiter, part, now))
  let at = now
  for (const { ask } of Line.members(limiter.line)) {
    at = agreed(limiter, ask, at, states)
    states = limiter.timings.map(({ meter }, i) =>
      ask.timings[i]! > 0 ? meter.charge(states[i], at, ask.timings[i]!, limiter.wall) : states[i]
    )
  }
  return agreed(limiter, ask, at, states) - now
}

/** What the logs say of a wait: as exact as can be said without going through a long line. */
const expectedToTell = (limiter: Limiter, ask: Ask, now: number): number | undefined =>
  limiter.timings.length === 0
    ? undefined
    : limiter.line.size > patienceToTell
    ? expectedWait(limiter, ask, now, patienceToTell)
    : untilAvailable(limiter, ask, now)

/** The names of the parts a newcomer would have to wait for: its own, and those the head waits for. */
const inTheWay = (limiter: Limiter, ask: Ask, now: number): ReadonlyArray<string> => {
  const head = limiter.line.head?.ask
  const timings = limiter.timings.filter((part, i) =>
    (ask.timings[i]! > 0 && (foreseen(limiter, ask, i, now, patienceToTell) ?? Infinity) > now + noise) ||
    (head !== undefined && head.timings[i]! > 0 &&
      part.meter.due(stateOf(part), now, head.timings[i]!, limiter.wall) > now + noise)
  )
  const gates = limiter.gates.filter((gate, i) => Math.max(ask.holdings[i]!, head?.holdings[i] ?? 0) > gate.free)
  return [...new Set([...timings, ...gates].map((part) => part.name))]
}

// ---------------------------------------------------------------------------------------------------------------------
// Starting and ending: the only places that charge and give back
// ---------------------------------------------------------------------------------------------------------------------

/** Starts a newcomer if it may start now. */
const tryStart = (limiter: Limiter, ask: Ask): boolean => {
  if (!isFree(limiter, ask)) return false
  if (limiter.timings.length > 0 && !chargeIfDue(limiter, ask, time(limiter))) return false
  admit(limiter, ask)
  return true
}

/**
 * Charges the timing parts if each of them would let it start now. One call of each meter and not two, since that is
 * what a call costs here: the compiler does not see through them where several kinds of meters are in use, and each
 * number that goes in or out becomes an object (`all` of three: 490 ns with two, 450 with one).
 */
const chargeIfDue = (limiter: Limiter, ask: Ask, now: number): boolean => {
  for (let i = 0; i < limiter.timings.length; i++) {
    const amount = ask.timings[i]!
    const part = limiter.timings[i]!
    part.next = amount === 0 ? stateOf(part) : part.meter.take(stateOf(part), now, amount, limiter.wall)
    if (part.next === undefined) return chargeIfNearlyDue(limiter, ask, now)
  }
  for (let i = 0; i < limiter.timings.length; i++) {
    const part = limiter.timings[i]!
    if (part.chargedWhenFree === undefined) part.state.ref.current = part.next
  }
  return true
}

const chargeIfNearlyDue = (limiter: Limiter, ask: Ask, now: number): boolean => {
  const due = dueFrom(limiter, ask, now)
  if (due > now + noise) return false
  charge(limiter, ask, now, due)
  return true
}

/** Charges the timing parts. `due` is when it was due, `now` when it really starts. */
const charge = (limiter: Limiter, ask: Ask, now: number, due: number): void => {
  for (let i = 0; i < limiter.timings.length; i++) {
    const amount = ask.timings[i]!
    const part = limiter.timings[i]!
    if (amount === 0 || part.chargedWhenFree !== undefined) continue
    const at = Math.max(due, now - part.meter.grace)
    part.state.ref.current = part.meter.charge(stateOf(part), at, amount, limiter.wall)
  }
}

/** Takes the permits. */
const admit = (limiter: Limiter, ask: Ask): void => {
  if (ask.holds) {
    for (let i = 0; i < limiter.gates.length; i++) limiter.gates[i]!.free -= ask.holdings[i]!
    limiter.counters.running++
    limiter.series.running++
  }
  limiter.counters.admitted++
  limiter.series.admitted++
}

/** Gives back what a call held, and says so to whoever waits for it. */
const end = (limiter: Limiter, ask: Ask): void => {
  if (!ask.holds) return
  for (let i = 0; i < limiter.timings.length; i++) {
    const part = limiter.timings[i]!
    if (part.chargedWhenFree === undefined || ask.timings[i] === 0) continue
    part.state.ref.current = part.meter.charge(stateOf(part), time(limiter), 1, limiter.wall)
  }
  for (let i = 0; i < limiter.gates.length; i++) limiter.gates[i]!.free += ask.holdings[i]!
  limiter.counters.running--
  limiter.series.running--
  // A head that has found its permits waits for time alone.
  if (limiter.line.head?.due === undefined) wakeHead(limiter)
}

/** The effect, holding its permits of every Semaphore while it runs. */
const withPermitsOf = <A, E, R>(
  limiter: Limiter,
  ask: Ask,
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => {
  for (let i = 0; i < limiter.gates.length; i++) {
    const amount = ask.holdings[i]!
    const { semaphore } = limiter.gates[i]!
    if (amount > 0) self = amount === 1 ? semaphore.withPermit(self) : semaphore.withPermits(amount)(self)
  }
  return self
}

// ---------------------------------------------------------------------------------------------------------------------
// The line
// ---------------------------------------------------------------------------------------------------------------------

const leave = (limiter: Limiter, call: Call): void => {
  const wasHead = limiter.line.head === call
  Line.leave(limiter.line, call)
  count(limiter, call.ask, -1)
  if (!wasHead) return
  if (call.state === "gone") {
    const gone = Math.min(time(limiter), call.arrival + limiter.plan.timeout)
    limiter.headSince = Math.max(limiter.headSince, gone)
  }
  wakeHead(limiter)
}

const count = (limiter: Limiter, ask: Ask, sign: 1 | -1): void => {
  for (let i = 0; i < limiter.timings.length; i++) {
    const amount = ask.timings[i]!
    if (amount === 0) continue
    limiter.timings[i]!.total += sign * amount
    limiter.timings[i]!.calls += sign
  }
  limiter.counters.waiting += sign
  limiter.series.waiting += sign
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
const judge = (limiter: Limiter, call: Call): void => {
  call.woken = false
  if (call.resume === undefined) return
  stopTimer(call)
  if (limiter.closed) return goOn(call, Effect.interrupt)
  if (limiter.line.head !== call) return
  const now = time(limiter)
  const due = dueOf(limiter, call, now)
  const deadline = call.arrival + limiter.plan.timeout
  if (due <= now + noise && due <= deadline + noise) {
    return goOn(call, isWatched(call) ? Effect.void : Effect.suspend(() => start(limiter, call)))
  }
  if (deadline <= now + noise) return goOn(call, timedOut(limiter, call, now))
  const until = Math.min(due, deadline)
  if (until === Infinity) return
  // A fiber of its own, because a sleep can only be cut short by interrupting the fiber that sleeps.
  const timer = Effect.runForkWith(call.fiber.context)(limiter.clock.sleep(sleepFor(until - now)))
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

/** How long to sleep for something due in so many nanoseconds. */
const sleepFor = (nanos: number): Duration.Duration => {
  const whole = Math.max(1, Math.floor(nanos / 1e3 + 0.1)) * 1e3
  // Eighths of a millisecond add up exactly. For other fractions a nanosecond less makes sure that a sum is not too late.
  return Duration.millis((whole % 125e3 === 0 ? whole : whole - 1) / 1e6)
}

/** How long somebody has to wait who asks: rounded up to microseconds. */
const rounded = (nanos: number): Duration.Duration => Duration.millis(Math.max(0, Math.ceil(nanos / 1e3 - 0.1)) / 1e3)

// ---------------------------------------------------------------------------------------------------------------------
// Calls
// ---------------------------------------------------------------------------------------------------------------------

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

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
  limiter.gates.length === 0 && tryStart(limiter, ask)
    ? self
    : Effect.uninterruptibleMask((restore) => beginMasked(limiter, ask, self, restore))

/**
 * Runs the effect when its turn comes, in a region that cannot be interrupted but where
 * `restore` says. So what is taken and the hook that gives it back belong together. (In
 * an interruptible region they would not: the scheduler may interrupt between two steps.)
 */
export const beginMasked = <A, E, R>(
  limiter: Limiter,
  ask: Ask,
  self: Effect.Effect<A, E, R>,
  restore: Restore
): Effect.Effect<A, E | ThrottleError, R> => {
  if (tryStart(limiter, ask)) return thenEnd(limiter, ask, withPermitsOf(limiter, ask, restore(self)))
  const call = arrive(limiter, ask, self)
  if (Effect.isEffect(call)) return restore(call)
  return Effect.onExitPrimitive(restore(awaitTurn(limiter, call)), () => {
    if (call.state === "waiting") return giveUp(limiter, call)
    if (call.state === "started") end(limiter, ask)
    return undefined
  }, true)
}

/** Runs the effect if it may start at once; otherwise does not run it at all. */
export const runIfAvailable = <A, E, R>(
  limiter: Limiter,
  ask: Ask,
  self: Effect.Effect<A, E, R>
): Effect.Effect<Option.Option<A>, E | ThrottleError, R> =>
  Effect.uninterruptibleMask((restore): Effect.Effect<Option.Option<A>, E | ThrottleError, R> => {
    if (tryStart(limiter, ask)) return thenEnd(limiter, ask, withPermitsOf(limiter, ask, restore(Effect.asSome(self))))
    if (limiter.closed) return Effect.interrupt
    if (ask.never !== undefined) return restore(reject(limiter, current(), ask, exceeds(limiter, ask, ask.never), 0))
    return Effect.succeedNone
  })

/** Takes its permits until the scope closes. */
export const takeScoped = (limiter: Limiter, ask: Ask): Effect.Effect<void, ThrottleError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) => {
    // Closing runs finalizers in reverse: the Semaphores get their permits back first, as they must.
    const keep = Effect.flatMap(Effect.scope, (scope) =>
      limiter.gates.reduce(
        (kept, { semaphore }, i) =>
          ask.holdings[i]! > 0 ? Effect.andThen(kept, semaphore.takeScoped(ask.holdings[i]!)) : kept,
        Scope.addFinalizer(scope, Effect.sync(() => end(limiter, ask))) as Effect.Effect<void, never, Scope.Scope>
      ))
    if (tryStart(limiter, ask)) return keep
    // The Semaphores lend their permits for a moment at the start, and then for good: `free` keeps them for this call.
    const call = arrive(limiter, ask, Effect.void)
    if (Effect.isEffect(call)) return restore(call)
    const admitted = Effect.onExitPrimitive(restore(awaitTurn(limiter, call)), (exit) => {
      if (call.state === "waiting") return giveUp(limiter, call)
      if (call.state === "started" && Exit.isFailure(exit)) end(limiter, ask)
      return undefined
    }, true)
    return Effect.flatMap(admitted, () => keep)
  })

/** The effect, and after it what it held given back. */
const thenEnd = <A, E, R>(limiter: Limiter, ask: Ask, self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  ask.holds
    ? Effect.onExitPrimitive(self, () => {
      end(limiter, ask)
      return undefined
    }, true)
    : self

/** A call that cannot start at once: it enters the line, or it is refused or interrupted. */
const arrive = (
  limiter: Limiter,
  ask: Ask,
  self: Effect.Effect<any, any, any>
): Call | Effect.Effect<never, ThrottleError> => {
  if (limiter.closed) return Effect.interrupt
  const fiber = current()
  const now = time(limiter)
  const refused = refuse(limiter, ask, now)
  return refused === undefined ? enter(limiter, ask, self, fiber, now) : reject(limiter, fiber, ask, refused, 0)
}

/** The fiber whose step this is. */
const current = (): AnyFiber => Fiber.getCurrent()!

const enter = (
  limiter: Limiter,
  ask: Ask,
  self: Effect.Effect<any, any, any>,
  fiber: AnyFiber,
  now: number
): Call => {
  const traced = fiber.cache.tracerEnabled
  const heard = Observe.isHeard(fiber)
  const call: Call = {
    ahead: undefined,
    behind: undefined,
    ask,
    fiber,
    arrival: now,
    traced,
    heard,
    queued: limiter.line.size + 1,
    // Before it enters: it expects to wait for the others, not for itself.
    expected: traced || heard ? expectedToTell(limiter, ask, now) : undefined,
    self,
    state: "waiting",
    due: undefined,
    short: false,
    resume: undefined,
    woken: false,
    timer: undefined
  }
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
  const due = limiter.closed ? Infinity : dueOf(limiter, call, now)
  if (due > now + noise) {
    return isWatched(call) ? Effect.flatMap(turn(limiter, call), () => start(limiter, call)) : turn(limiter, call)
  }
  call.state = "started"
  limiter.headSince = due
  charge(limiter, call.ask, now, due)
  admit(limiter, call.ask)
  leave(limiter, call)
  noteWait(limiter, now - call.arrival)
  const self = withPermitsOf(limiter, call.ask, call.self)
  const told = tellWaited(limiter, call, "Admitted")
  return told === undefined ? self : Effect.andThen(told, self)
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
      waited: waited(limiter, call)
    }))
    : turn(limiter, call)
  if (!call.heard) return wait
  const told = Observe.tell(call.fiber, "Waiting", () => ({
    _tag: "Waiting",
    throttle: limiter.plan.name,
    policy: limiter.plan.description,
    cost: call.ask.cost,
    queued: call.queued,
    ...(call.expected === undefined ? undefined : { expected: millis(call.expected)! })
  }))
  return told === undefined ? wait : Effect.andThen(told, wait)
}

const millis = (nanos: number | undefined): number | undefined => nanos === undefined ? undefined : nanos / 1e6

/** Milliseconds since it arrived. */
const waited = (limiter: Limiter, call: Call): number => (time(limiter) - call.arrival) / 1e6

const tellWaited = (limiter: Limiter, call: Call, tag: "Admitted" | "Interrupted"): Effect.Effect<void> | undefined =>
  call.heard
    ? Observe.tell(call.fiber, tag, () => ({
      _tag: tag,
      throttle: limiter.plan.name,
      policy: limiter.plan.description,
      cost: call.ask.cost,
      waited: waited(limiter, call)
    }))
    : undefined

const noteWait = (limiter: Limiter, nanos: number): void => {
  limiter.counters.waited += nanos
  limiter.counters.longestWait = Math.max(limiter.counters.longestWait, nanos)
  Observe.addWait(limiter.series.waits, nanos / 1e9)
}

/** A call that was interrupted while it waited. */
const giveUp = (limiter: Limiter, call: Call): Effect.Effect<void> | undefined => {
  call.state = "gone"
  call.resume = undefined
  stopTimer(call)
  leave(limiter, call)
  limiter.counters.interrupted++
  limiter.series.interrupted++
  return tellWaited(limiter, call, "Interrupted")
}

// ---------------------------------------------------------------------------------------------------------------------
// Refusing
// ---------------------------------------------------------------------------------------------------------------------

/** Why a call that cannot start at once may not wait either; undefined if it may. */
const refuse = (limiter: Limiter, ask: Ask, now: number): ThrottleError | undefined => {
  const { maxQueue, maxWait } = limiter.plan
  if (ask.never !== undefined) return exceeds(limiter, ask, ask.never)
  if (limiter.line.size >= maxQueue) {
    return new ThrottleError({ reason: new QueueFull({ ...circumstances(limiter, ask, now), limit: maxQueue }) })
  }
  if (maxWait !== Infinity && (expectedWait(limiter, ask, now) ?? 0) > maxWait + noise) {
    const limit = Duration.millis(maxWait / 1e6)
    return new ThrottleError({ reason: new WaitTooLong({ ...circumstances(limiter, ask, now), limit }) })
  }
  return undefined
}

const exceeds = (
  limiter: Limiter,
  ask: Ask,
  part: { readonly name: string; readonly limit: number }
): ThrottleError =>
  new ThrottleError({
    reason: new PermitsExceedCapacity({
      throttle: limiter.plan.name,
      cost: spelled(ask.cost),
      queued: limiter.line.size,
      parts: [part.name],
      limit: part.limit
    })
  })

const circumstances = (limiter: Limiter, ask: Ask, now: number) => {
  const wait = untilAvailable(limiter, ask, now)
  return {
    throttle: limiter.plan.name,
    cost: spelled(ask.cost),
    queued: limiter.line.size,
    parts: inTheWay(limiter, ask, now),
    // Where only permits stand in the way nothing can be foreseen: nobody knows when a running call ends.
    ...(wait <= noise ? undefined : { retryAfter: Duration.millis(Math.ceil((wait - noise) / 1e6)) })
  }
}

const reject = (
  limiter: Limiter,
  fiber: AnyFiber,
  ask: Ask,
  error: ThrottleError,
  waited: number
): Effect.Effect<never, ThrottleError> => {
  limiter.counters.rejected[error.reason._tag]++
  limiter.series.rejected[error.reason._tag]++
  const told = Observe.tell(fiber, "Rejected", () => ({
    _tag: "Rejected",
    throttle: limiter.plan.name,
    policy: limiter.plan.description,
    cost: ask.cost,
    waited,
    error
  }))
  return told === undefined ? Effect.fail(error) : Effect.andThen(told, Effect.fail(error))
}

/** The head's time is up: out of the line at once, so that what it is told is about those who remain. */
const timedOut = (limiter: Limiter, call: Call, now: number): Effect.Effect<never, ThrottleError> => {
  call.state = "gone"
  leave(limiter, call)
  const limit = Duration.millis(limiter.plan.timeout / 1e6)
  const error = new ThrottleError({ reason: new TimedOut({ ...circumstances(limiter, call.ask, now), limit }) })
  return reject(limiter, call.fiber, call.ask, error, waited(limiter, call))
}

// ---------------------------------------------------------------------------------------------------------------------
// Asking
// ---------------------------------------------------------------------------------------------------------------------

/** How long a newcomer would wait; none where nobody can know, and where it would be for ever. */
export const nextAvailable = (limiter: Limiter, ask: Ask): Effect.Effect<Option.Option<Duration.Duration>> =>
  Effect.sync(() => {
    if (limiter.closed || ask.never !== undefined) return Option.none()
    const now = time(limiter)
    if (isFree(limiter, ask) && dueFrom(limiter, ask, now) <= now + noise) return Option.some(Duration.zero)
    if (limiter.gates.length > 0 && (limiter.line.size > 0 || !hasPermits(limiter, ask))) return Option.none()
    return Option.some(rounded(untilAvailable(limiter, ask, now)))
  })

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

export const statistics = (limiter: Limiter): Effect.Effect<Statistics> =>
  Effect.sync(() => {
    const { longestWait, rejected, waited, ...counters } = limiter.counters
    return {
      ...counters,
      rejected: { ...rejected },
      waited: Duration.millis(waited / 1e6),
      longestWait: Duration.millis(longestWait / 1e6)
    }
  })
