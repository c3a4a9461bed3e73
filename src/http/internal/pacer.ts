/**
 * Holds requests back by what was learned of a server's limit, before they ask the policy for permits: so nothing is charged
 * while they wait.
 *
 * How it holds together:
 *
 * - A request arrives, is admitted, and starts. In between it asks the policy, which may have it wait longer: so whether it
 *   may start is asked again when it has its permits. If not, it gives them back and waits at its old place.
 * - Invariant: `ahead` is the number of requests that are admitted and have not started. While the rate or the number at once
 *   is limited, no more than one is admitted at a time, unless it was before that was learned.
 * - The queue is ordered by place. A newcomer takes the next place; a request whose refusal was stale keeps its own.
 * - Only the head of the queue is looked at: when something starts, ends or leaves, and when its timer ends.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Learner from "./learning/learner.ts"
import { type Fields, leftAt } from "./learning/quota.ts"
import * as Places from "./places.ts"

export interface Pacer {
  learner: Learner.Learner
  readonly queue: Places.Places<Passage>
  ahead: number
  /** The next place. */
  places: number
  timer: { readonly at: number; readonly fiber: Fiber.Fiber<void> } | undefined
  /** Whether the queue is about to be looked at. */
  isWoken: boolean
}

/** A request on its way through a pacer. */
export interface Passage extends Places.Placed {
  state: "waiting" | "admitted" | "started" | "over"
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly arrival: number
  sent: Learner.Sent | undefined
  /** Continues a fiber that waits. */
  resume: ((effect: Effect.Effect<void>) => void) | undefined
}

export const make = (now: number): Pacer => ({
  learner: Learner.make(now),
  queue: [],
  ahead: 0,
  places: 0,
  timer: undefined,
  isWoken: false
})

/** Nanoseconds on the monotonic clock of the fiber. */
export const timeOf = (fiber: Fiber.Fiber<unknown, unknown>): number =>
  Number(fiber.getRef(Clock.Clock).monotonicTimeNanosUnsafe())

/** A request arrives, at a place of its own or at the end. It is admitted if it may start now and the queue is empty. */
export const arrive = (pacer: Pacer, fiber: Fiber.Fiber<unknown, unknown>, place: number | undefined): Passage => {
  const now = timeOf(fiber)
  const passage: Passage = {
    state: "waiting",
    fiber,
    arrival: now,
    place: place ?? pacer.places++,
    index: -1,
    sent: undefined,
    resume: undefined
  }
  if (pacer.queue.length === 0 && Learner.readyAt(pacer.learner, now, pacer.ahead) <= now) {
    passage.state = "admitted"
    pacer.ahead++
  } else Places.push(pacer.queue, passage)
  return passage
}

/** Waits until the request is admitted. What an interruption leaves behind is cleared away by {@link leave}. */
export const admission = (pacer: Pacer, passage: Passage): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (passage.state !== "waiting") return resume(Effect.void)
    passage.resume = resume
    drain(pacer)
  })

/**
 * Starts a request that is admitted, if it may still start; to be called in the step in which it is sent. If not, it waits
 * again at its place.
 */
export const start = (pacer: Pacer, passage: Passage): boolean => {
  const now = timeOf(passage.fiber)
  pacer.ahead--
  if (Learner.readyAt(pacer.learner, now, 0) > now) {
    passage.state = "waiting"
    Places.push(pacer.queue, passage)
    wake(pacer)
    return false
  }
  const isBound = pacer.queue.length > 0 || pacer.ahead > 0
  ;[pacer.learner, passage.sent] = Learner.start(pacer.learner, now, isBound)
  passage.state = "started"
  wake(pacer)
  return true
}

/** The request is over, however it ended. */
export const leave = (pacer: Pacer, passage: Passage): void => {
  const { sent, state } = passage
  passage.state = "over"
  passage.resume = undefined
  if (state === "waiting") Places.remove(pacer.queue, passage)
  else if (state === "admitted") pacer.ahead--
  else if (state === "started") pacer.learner = Learner.end(pacer.learner, sent!)
  wake(pacer)
}

/** The request was answered, and was not refused. `most`: how many the policy allows at once, where that is known. */
export const accepted = (
  pacer: Pacer,
  passage: Passage,
  fields: Fields | undefined,
  most: () => number | undefined
): void => {
  passage.state = "over"
  const { learner } = pacer
  const known = learner.rate.atOnce < Infinity ? most() : undefined
  pacer.learner = Learner.accept(learner, timeOf(passage.fiber), passage.sent!, fields, known)
  wake(pacer)
}

/** The request was refused. */
export const refused = (
  pacer: Pacer,
  passage: Passage,
  named: number | undefined,
  fields: Fields | undefined,
  stretch: (nanos: number) => number
): Learner.Refusal => {
  passage.state = "over"
  const refusal = Learner.refuse(pacer.learner, timeOf(passage.fiber), passage.sent!, named, fields, stretch)
  pacer.learner = refusal.learner
  wake(pacer)
  return refusal
}

export const statistics = ({ learner, queue }: Pacer, now: number) => ({
  rate: Learner.ratePerSecond(learner),
  limit: learner.quota.kind,
  remaining: leftAt(learner.quota, now),
  waiting: queue.length,
  running: learner.inFlight
})

// ---------------------------------------------------------------------------------------------------------------------
// The head of the queue
// ---------------------------------------------------------------------------------------------------------------------

/** On the head's own scheduler and not at once, since what is admitted runs as far as it can. */
const wake = (pacer: Pacer): void => {
  const head = pacer.queue[0]
  if (head === undefined) return stopTimer(pacer)
  if (pacer.isWoken) return
  pacer.isWoken = true
  head.fiber.currentDispatcher.scheduleTask(() => {
    pacer.isWoken = false
    drain(pacer)
  }, 0)
}

/** Admits from the head on, until one has to wait. */
const drain = (pacer: Pacer): void => {
  for (let head = pacer.queue[0]; head !== undefined; head = pacer.queue[0]) {
    const now = timeOf(head.fiber)
    const at = Learner.readyAt(pacer.learner, now, pacer.ahead)
    if (at > now) return at < Infinity ? setTimer(pacer, head, at, now) : stopTimer(pacer)
    Places.remove(pacer.queue, head)
    head.state = "admitted"
    pacer.ahead++
    const { resume } = head
    head.resume = undefined
    resume?.(Effect.void)
  }
  stopTimer(pacer)
}

const setTimer = (pacer: Pacer, head: Passage, at: number, now: number): void => {
  if (pacer.timer?.at === at) return
  stopTimer(pacer)
  // A fiber of its own, because a sleep can only be cut short by interrupting the fiber that sleeps. In whole microseconds.
  const sleep = Effect.sleep(Duration.millis(Math.ceil((at - now) / 1e3) / 1e3))
  const fiber = Effect.runForkWith(head.fiber.context)(sleep)
  // A clock may sleep no time at all.
  if (fiber.pollUnsafe() !== undefined) return wake(pacer)
  pacer.timer = { at, fiber }
  fiber.addObserver(() => {
    if (pacer.timer?.fiber !== fiber) return
    pacer.timer = undefined
    drain(pacer)
  })
}

const stopTimer = (pacer: Pacer): void => {
  const { timer } = pacer
  pacer.timer = undefined
  timer?.fiber.interruptUnsafe()
}
