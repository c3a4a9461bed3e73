/**
 * The only place where Ref, Semaphore, Clock and the line meet: admit, wait, charge,
 * give back.
 *
 * How it holds together:
 *
 * - Whoever finds nobody waiting and every part ready is charged and starts in that
 *   same step. Everyone else enters the line.
 * - Only the head of the line is ever judged: is it due now, and if not, when is there
 *   reason to look again? It is judged when it becomes the head, when its timer ends and
 *   when permits come back ({@link pump}). Nothing is taken or charged by judging.
 * - A head that is due is resumed, and charges itself in the step in which its effect
 *   begins ({@link start}). Until then it stands in the line like everyone else, so an
 *   interruption before that step costs nothing, whenever it comes.
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
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Ref from "effect/Ref"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { PermitsExceedCapacity, QueueFull, ThrottleError, TimedOut, WaitTooLong } from "../ThrottleError.ts"
import * as Line from "./line.ts"
import { type Ahead, foresee, type Meter, type Wall } from "./meter/meter.ts"
import * as Observe from "./observe.ts"
import { type Holding, permits, type Plan, type Timing } from "./plan.ts"

type AnyFiber = Fiber.Fiber<unknown, unknown>

/** What a call costs: permits, or an amount for each unit. */
export type Cost = number | Readonly<Record<string, number>>

/** A cost as the parts see it: an amount for each of the plan's timings and holdings. */
export interface Ask {
  readonly cost: Cost
  readonly timings: ReadonlyArray<number>
  readonly holdings: ReadonlyArray<number>
  /** The part that could never grant this, if there is one: then it is refused at once, and no meter is asked. */
  readonly never: { readonly name: string; readonly limit: number } | undefined
}

interface Clockwork extends Timing {
  readonly state: Ref.Ref<unknown>
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
  /** The due instant of the last call that was admitted after waiting. */
  lastDue: number
  pumping: boolean
  closed: boolean
}

/** A call that could not start at once. */
interface Call extends Line.Place<Call> {
  readonly ask: Ask
  readonly fiber: AnyFiber
  readonly arrival: number
  readonly deadline: number
  /** Nanoseconds it expected to wait when it arrived; undefined where nobody asked or nobody knows. */
  readonly expected: number | undefined
  state: "waiting" | "started" | "gone"
  /** When it may start; undefined until it is the head and the permits it asks for are free. */
  due: number | undefined
  /** Whether it found too few permits free when it was the head. */
  short: boolean
  /** Judges it again; set while its fiber is parked. */
  judge: (() => void) | undefined
}

/** A difference in time below this, 100 ns, is the noise of adding fractions, not time. */
const noise = 100

export const makeUnsafe = (plan: Plan, context: Context.Context<never>, clock: Clock.Clock): Limiter => ({
  plan,
  clock,
  wall: (at) => clock.currentTimeMillisUnsafe() + (at - Number(clock.monotonicTimeNanosUnsafe())) / 1e6,
  timings: plan.timings.map((part) => ({ ...part, state: Ref.makeUnsafe(part.meter.initial), total: 0, calls: 0 })),
  gates: plan.holdings.map((part) => ({ ...part, semaphore: Semaphore.makeUnsafe(part.limit), free: part.limit })),
  line: Line.make(),
  one: amounts(plan, 1, (unit) => unit === permits ? 1 : 0),
  counters: { ...Observe.counters(), waited: 0, longestWait: 0 },
  series: Observe.series(context, plan.name),
  lastDue: -Infinity,
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
  for (const call of Array.from(Line.members(limiter.line))) call.judge?.()
}

// ---------------------------------------------------------------------------------------------------------------------
// Costs
// ---------------------------------------------------------------------------------------------------------------------

const amounts = (plan: Plan, cost: Cost, amount: (unit: string) => number): Ask => {
  const of = (part: Timing | Holding) => part.flat ? Math.min(1, amount(part.unit)) : amount(part.unit)
  const timings = plan.timings.map(of)
  const holdings = plan.holdings.map(of)
  const timing = plan.timings.find((part, i) => timings[i]! > part.meter.capacity)
  const holding = plan.holdings.find((part, i) => holdings[i]! > part.limit)
  const never = timing !== undefined
    ? { name: timing.name, limit: timing.meter.capacity }
    : holding && { name: holding.name, limit: holding.limit }
  return { cost, timings, holdings, never }
}

/** What each part is asked for. Throws a RangeError for a cost that makes no sense to this throttle. */
export const ask = (limiter: Limiter, cost: Cost | undefined): Ask => {
  if (cost === undefined || (cost === 1 && knows(limiter.plan, permits))) return limiter.one
  if (typeof cost !== "number" && !Predicate.isObject(cost)) {
    throw new RangeError(
      `throttle "${limiter.plan.name}": a cost must be a number of permits or an amount for each unit, got ${cost}`
    )
  }
  const given = spelled(cost)
  for (const [unit, amount] of Object.entries(given)) {
    if (!knows(limiter.plan, unit)) {
      throw new RangeError(
        `throttle "${limiter.plan.name}": nothing here counts "${unit}"; it counts ${
          [...limiter.plan.units ?? []].map((unit) => `"${unit}"`).join(", ")
        }`
      )
    }
    if (!Number.isSafeInteger(amount) || amount < 0) {
      throw new RangeError(
        `throttle "${limiter.plan.name}": a cost must be a whole number of at least 0, got ${amount} for "${unit}"`
      )
    }
  }
  return amounts(limiter.plan, cost, (unit) => Object.hasOwn(given, unit) ? given[unit]! : unit === permits ? 1 : 0)
}

const knows = (plan: Plan, unit: string): boolean => plan.units === undefined || plan.units.has(unit)

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
  for (let i = 0; i < limiter.timings.length; i++) {
    const amount = ask.timings[i]!
    const part = limiter.timings[i]!
    if (amount > 0) from = part.meter.due(stateOf(part), from, amount, limiter.wall)
  }
  return from
}

/** Whether a newcomer may start at `now`. It never passes those who wait. */
const isFree = (limiter: Limiter, ask: Ask, now: number): boolean =>
  ask.never === undefined && limiter.line.size === 0 && hasPermits(limiter, ask) &&
  dueFrom(limiter, ask, now) <= now + noise

/** When the head may start; Infinity while a permit is missing. */
const dueOf = (limiter: Limiter, call: Call, now: number): number => {
  if (!hasPermits(limiter, call.ask)) {
    call.short = true
    call.due = undefined
    return Infinity
  }
  if (call.due === undefined) {
    const from = Math.max(call.arrival, limiter.lastDue, call.short ? now : -Infinity)
    call.due = dueFrom(limiter, call.ask, from)
  }
  return call.due
}

/** When a timing part alone could let a newcomer start behind all who wait. */
const foreseen = (limiter: Limiter, ask: Ask, index: number, now: number): number => {
  const part = limiter.timings[index]!
  const meter: Meter<unknown> = part.meter
  const ahead: Ahead = { calls: part.calls, total: part.total, costs: costs(limiter, index) }
  // Spacing from the end counts a call that runs as if it ended now: one interval for it.
  const state = part.chargedWhenFree !== undefined && isHeld(limiter.gates[part.chargedWhenFree]!)
    ? meter.charge(stateOf(part), now, 1, limiter.wall)
    : stateOf(part)
  return foresee(meter, state, now, ask.timings[index]!, ahead, limiter.wall)
}

function* costs(limiter: Limiter, index: number): Generator<number> {
  for (const call of Line.members(limiter.line)) {
    const amount = call.ask.timings[index]!
    if (amount > 0) yield amount
  }
}

const isHeld = (gate: Gate): boolean => gate.free < gate.limit

/** Nanoseconds a newcomer would wait; undefined where no part can foresee it. */
const expectedWait = (limiter: Limiter, ask: Ask, now: number): number | undefined => {
  let expected: number | undefined
  for (let i = 0; i < limiter.timings.length; i++) {
    if (ask.timings[i]! > 0) expected = Math.max(expected ?? 0, foreseen(limiter, ask, i, now) - now)
  }
  return expected
}

/** The names of the parts a newcomer would have to wait for. */
const inTheWay = (limiter: Limiter, ask: Ask, now: number): ReadonlyArray<string> => {
  const timings = limiter.timings.filter((_, i) => ask.timings[i]! > 0 && foreseen(limiter, ask, i, now) > now + noise)
  const gates = limiter.gates.filter((gate, i) =>
    ask.holdings[i]! > gate.free || (limiter.line.head?.ask.holdings[i] ?? 0) > gate.free
  )
  return [...new Set([...timings, ...gates].map((part) => part.name))]
}

// ---------------------------------------------------------------------------------------------------------------------
// Starting and ending: the only places that charge and give back
// ---------------------------------------------------------------------------------------------------------------------

/** Charges every part and takes every permit, in one step. `due` is `now` for a call that did not wait. */
const start = (limiter: Limiter, ask: Ask, now: number, due: number): void => {
  for (let i = 0; i < limiter.timings.length; i++) {
    const amount = ask.timings[i]!
    const part = limiter.timings[i]!
    if (amount === 0 || part.chargedWhenFree !== undefined) continue
    const at = Math.max(due, now - part.meter.grace)
    part.state.ref.current = part.meter.charge(stateOf(part), at, amount, limiter.wall)
  }
  if (limiter.gates.length > 0) {
    for (let i = 0; i < limiter.gates.length; i++) limiter.gates[i]!.free -= ask.holdings[i]!
    if (holds(ask)) {
      limiter.counters.running++
      limiter.series.running++
    }
  }
  limiter.counters.admitted++
  limiter.series.admitted++
}

/** Gives back what a call held, and says so to whoever waits for it. */
const end = (limiter: Limiter, ask: Ask): void => {
  if (!holds(ask)) return
  for (let i = 0; i < limiter.timings.length; i++) {
    const part = limiter.timings[i]!
    if (part.chargedWhenFree === undefined || ask.timings[i] === 0) continue
    part.state.ref.current = part.meter.charge(stateOf(part), time(limiter), 1, limiter.wall)
  }
  for (let i = 0; i < limiter.gates.length; i++) limiter.gates[i]!.free += ask.holdings[i]!
  limiter.counters.running--
  limiter.series.running--
  wakeHead(limiter)
}

const holds = (ask: Ask): boolean => ask.holdings.some((amount) => amount > 0)

/** The effect while it holds its permits of every Semaphore. */
const holding = <A, E, R>(limiter: Limiter, ask: Ask, self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
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
  Line.leave(limiter.line, call)
  count(limiter, call.ask, -1)
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
  if (head !== undefined && head.judge !== undefined && !limiter.pumping) {
    head.fiber.currentDispatcher.scheduleTask(() => pump(limiter), 0)
  }
}

/** Judges the head, and each that becomes the head by that, until one has to wait. */
const pump = (limiter: Limiter): void => {
  if (limiter.pumping) return
  limiter.pumping = true
  try {
    for (let head = limiter.line.head; head?.judge !== undefined; head = limiter.line.head) {
      head.judge()
      if (limiter.line.head === head) return
    }
  } finally {
    limiter.pumping = false
  }
}

/**
 * Parks the call's fiber until it is the head and due. It does not leave the line.
 *
 * Judging and parking are one step, so no wake falls between them. The head's timer runs
 * in a small fiber of its own, because a sleep can only be cut short by interrupting the
 * fiber that sleeps; it lives no longer than the wait.
 */
const turn = (limiter: Limiter, call: Call): Effect.Effect<void, ThrottleError> =>
  Effect.callback((resume) => {
    let timer: AnyFiber | undefined
    const stop = () => {
      const running = timer
      timer = undefined
      running?.interruptUnsafe()
    }
    const finish = (effect: Effect.Effect<void, ThrottleError>) => {
      call.judge = undefined
      resume(effect)
    }
    const judge = () => {
      stop()
      if (limiter.closed) return finish(Effect.interrupt)
      if (limiter.line.head !== call) return
      const now = time(limiter)
      const due = dueOf(limiter, call, now)
      if (due <= now + noise && due <= call.deadline + noise) return finish(Effect.void)
      if (call.deadline <= now + noise) return finish(timedOut(limiter, call))
      const until = Math.min(due, call.deadline)
      if (until === Infinity) return
      const sleeper = Effect.runForkWith(call.fiber.context)(limiter.clock.sleep(duration(until - now)))
      // A clock may sleep no time at all.
      if (sleeper.pollUnsafe() !== undefined) return judge()
      timer = sleeper
      sleeper.addObserver(() => {
        if (timer === sleeper) pump(limiter)
      })
    }
    call.judge = judge
    judge()
    return Effect.sync(() => {
      call.judge = undefined
      stop()
    })
  })

/** Rounded up to microseconds: never early, and coarser than the noise of the clock's own arithmetic. */
const duration = (nanos: number): Duration.Duration => Duration.millis(Math.ceil(nanos / 1e3) / 1e3)

// ---------------------------------------------------------------------------------------------------------------------
// Calls
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Runs the effect when its turn comes. To be called in a step of the fiber that will run
 * it: where nobody waits and every part is ready that step is all there is, no hook, no
 * generator, nothing to clean up.
 */
export const begin = <A, E, R>(
  limiter: Limiter,
  ask: Ask,
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | ThrottleError, R> => {
  if (limiter.gates.length > 0) return queued(limiter, ask, holding(limiter, ask, self))
  const now = time(limiter)
  if (limiter.closed || !isFree(limiter, ask, now)) return queued(limiter, ask, self)
  start(limiter, ask, now, now)
  return self
}

/**
 * The whole way of a call: arrive, wait if need be, start, give back. One exit hook
 * watches over all of it, installed before anything is entered or taken; it looks at
 * how far the call has come. (Taking first and hooking after would leak: the scheduler
 * may interrupt between any two steps.)
 */
const queued = <A, E, R>(
  limiter: Limiter,
  ask: Ask,
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | ThrottleError, R> =>
  Effect.suspend(() => {
    let call: Call | undefined
    let holds = false
    return Effect.onExitPrimitive(
      Effect.withFiber((fiber) => {
        const now = time(limiter)
        if (limiter.closed) return Effect.interrupt
        if (isFree(limiter, ask, now)) {
          holds = true
          start(limiter, ask, now, now)
          return self
        }
        const refused = refuse(limiter, ask, now)
        if (refused !== undefined) return reject(limiter, fiber, ask, refused, 0)
        call = enter(limiter, ask, fiber, now)
        return awaitTurn(limiter, call, identity, (told) => {
          holds = true
          return told === undefined ? self : Effect.andThen(told, self)
        })
      }),
      () => {
        if (call?.state === "waiting") return giveUp(limiter, call)
        if (holds) end(limiter, ask)
        return undefined
      }
    )
  })

const identity = <A>(a: A): A => a

const enter = (limiter: Limiter, ask: Ask, fiber: AnyFiber, now: number): Call => {
  const call: Call = {
    ahead: undefined,
    behind: undefined,
    ask,
    fiber,
    arrival: now,
    deadline: now + limiter.plan.timeout,
    // Before it enters: what it expects is to wait for the others, not for itself.
    expected: Observe.watches(fiber) ? expectedWait(limiter, ask, now) : undefined,
    state: "waiting",
    due: undefined,
    short: false,
    judge: undefined
  }
  Line.enter(limiter.line, call)
  count(limiter, ask, 1)
  return call
}

/**
 * From the line to the start. `restore` is where the wait may be interrupted; `started`
 * gives the effect that follows the charge in the same step, and is told how to tell of it.
 */
const awaitTurn = <A, E, R>(
  limiter: Limiter,
  call: Call,
  restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>,
  started: (told: Effect.Effect<void> | undefined) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | ThrottleError, R> => {
  const { expected, fiber } = call
  const waited = () => (time(limiter) - call.arrival) / 1e6
  const waiting = (): Observe.Event => ({
    _tag: "Waiting",
    ...about(limiter, call.ask),
    queued: limiter.line.size,
    expected: expected === undefined ? undefined : expected / 1e6
  })
  const attempt: Effect.Effect<A, E | ThrottleError, R> = Effect.suspend(() => {
    const now = time(limiter)
    const due = limiter.closed || limiter.line.head !== call ? Infinity : dueOf(limiter, call, now)
    if (due > now + noise) return Effect.flatMap(restore(turn(limiter, call)), () => attempt)
    call.state = "started"
    limiter.lastDue = due
    start(limiter, call.ask, now, due)
    leave(limiter, call)
    noteWait(limiter, fiber, now - call.arrival)
    return started(
      Observe.tell(fiber, "Admitted", () => ({ _tag: "Admitted", ...about(limiter, call.ask), waited: waited() }))
    )
  })
  const wait = Observe.withWaitSpan(fiber, waiting, waited, restore(turn(limiter, call)))
  const told = Observe.tell(fiber, "Waiting", waiting)
  return Effect.flatMap(told === undefined ? wait : Effect.andThen(restore(told), wait), () => attempt)
}

const noteWait = (limiter: Limiter, fiber: AnyFiber, nanos: number): void => {
  limiter.counters.waited += nanos
  limiter.counters.longestWait = Math.max(limiter.counters.longestWait, nanos)
  limiter.series.waitSeconds.updateUnsafe(nanos / 1e9, fiber.context)
}

/** A call that was interrupted while it waited. */
const giveUp = (limiter: Limiter, call: Call): Effect.Effect<void> | undefined => {
  call.state = "gone"
  leave(limiter, call)
  limiter.counters.interrupted++
  limiter.series.interrupted++
  return Observe.tell(call.fiber, "Interrupted", () => ({
    _tag: "Interrupted",
    ...about(limiter, call.ask),
    waited: (time(limiter) - call.arrival) / 1e6
  }))
}

const about = (limiter: Limiter, ask: Ask) => ({
  throttle: limiter.plan.name,
  policy: limiter.plan.description,
  cost: ask.cost
})

/** Runs the effect if it may start at once; otherwise it does not run at all. */
export const runIfAvailable = <A, E, R>(
  limiter: Limiter,
  ask: Ask,
  self: Effect.Effect<A, E, R>
): Effect.Effect<Option.Option<A>, E | ThrottleError, R> =>
  Effect.suspend(() => {
    const effect = Effect.asSome(holding(limiter, ask, self))
    let holds = false
    return Effect.onExitPrimitive(
      Effect.withFiber((fiber): Effect.Effect<Option.Option<A>, E | ThrottleError, R> => {
        const now = time(limiter)
        if (limiter.closed) return Effect.interrupt
        if (isFree(limiter, ask, now)) {
          holds = true
          start(limiter, ask, now, now)
          return effect
        }
        return ask.never === undefined
          ? Effect.succeedNone
          : reject(limiter, fiber, ask, exceeds(limiter, ask, ask.never), 0)
      }),
      () => {
        if (holds) end(limiter, ask)
        return undefined
      }
    )
  })

/** Takes its permits until the scope closes. */
export const takeScoped = (limiter: Limiter, ask: Ask): Effect.Effect<void, ThrottleError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.withFiber((fiber: AnyFiber): Effect.Effect<void, ThrottleError, Scope.Scope> => {
      let call: Call | undefined
      // Closing runs finalizers in reverse: the Semaphores get their permits back first, as they must.
      const keep = Effect.flatMap(Effect.scope, (scope) =>
        limiter.gates.reduce(
          (taken, gate, i) =>
            ask.holdings[i]! > 0 ? Effect.andThen(taken, gate.semaphore.takeScoped(ask.holdings[i]!)) : taken,
          Scope.addFinalizer(scope, Effect.sync(() => end(limiter, ask))) as Effect.Effect<void, never, Scope.Scope>
        ))
      const now = time(limiter)
      if (limiter.closed) return Effect.interrupt
      if (isFree(limiter, ask, now)) {
        start(limiter, ask, now, now)
        return keep
      }
      const refused = refuse(limiter, ask, now)
      if (refused !== undefined) return reject(limiter, fiber, ask, refused, 0)
      return Effect.onExitPrimitive(
        Effect.suspend(() => {
          call = enter(limiter, ask, fiber, now)
          return awaitTurn(limiter, call, restore, (told) => told === undefined ? keep : Effect.andThen(keep, told))
        }),
        () => call?.state === "waiting" ? giveUp(limiter, call) : undefined
      )
    })
  )

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

const spelled = (cost: Cost): Readonly<Record<string, number>> => typeof cost === "number" ? { [permits]: cost } : cost

const circumstances = (limiter: Limiter, ask: Ask, now: number) => {
  const expected = expectedWait(limiter, ask, now)
  return {
    throttle: limiter.plan.name,
    cost: spelled(ask.cost),
    queued: limiter.line.size,
    parts: inTheWay(limiter, ask, now),
    ...(expected === undefined ? undefined : { retryAfter: Duration.millis(Math.ceil((expected - noise) / 1e6)) })
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
  const told = Observe.tell(fiber, "Rejected", () => ({ _tag: "Rejected", ...about(limiter, ask), waited, error }))
  return told === undefined ? Effect.fail(error) : Effect.andThen(told, Effect.fail(error))
}

/** The head's time is up: out of the line at once, so that what it is told is about those who remain. */
const timedOut = (limiter: Limiter, call: Call): Effect.Effect<never, ThrottleError> => {
  const now = time(limiter)
  call.state = "gone"
  leave(limiter, call)
  const limit = Duration.millis(limiter.plan.timeout / 1e6)
  const error = new ThrottleError({ reason: new TimedOut({ ...circumstances(limiter, call.ask, now), limit }) })
  return reject(limiter, call.fiber, call.ask, error, (now - call.arrival) / 1e6)
}

// ---------------------------------------------------------------------------------------------------------------------
// Asking
// ---------------------------------------------------------------------------------------------------------------------

/** How long a newcomer would wait; none where nobody can know, and where it would be for ever. */
export const nextAvailable = (limiter: Limiter, ask: Ask): Effect.Effect<Option.Option<Duration.Duration>> =>
  Effect.sync(() => {
    const now = time(limiter)
    if (ask.never !== undefined) return Option.none()
    if (isFree(limiter, ask, now)) return Option.some(Duration.zero)
    if (limiter.gates.length > 0 && (limiter.line.size > 0 || !hasPermits(limiter, ask))) return Option.none()
    return Option.some(duration(Math.max(0, (expectedWait(limiter, ask, now) ?? 0) - noise)))
  })

/**
 * What a throttle has done so far, and who waits and runs now.
 *
 * @see Throttle.Throttle for where it comes from
 * @category models
 * @since 0.1.0
 */
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
