/**
 * Schedules the drain of a limiter's queue: soon, in a task of its own, or at an instant, by one timer.
 *
 * Three independent facts: a timer, a task on the head's dispatcher, a drain in progress. A drain requested while one is in
 * progress is not needed, since that goes on until the head of the queue has to wait.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { AnyFiber } from "./grant.ts"

export interface Scheduler extends Options {
  isDraining: boolean
  /** The fiber on whose dispatcher a drain is scheduled. */
  scheduledOn: AnyFiber | undefined
  timer: Timer | undefined
}

interface Options {
  readonly clock: Clock.Clock
  /** The fiber of the head of the queue, if it is parked; otherwise undefined. */
  readonly head: () => AnyFiber | undefined
  /** Admits waiters until one has to wait. Returns false if it stopped earlier, to let other fibers run. */
  readonly drain: () => boolean
}

/** A sleeping fiber, since a sleep is ended early only by interrupting its fiber. */
interface Timer {
  readonly fiber: AnyFiber
  readonly until: number
}

export const make = (options: Options): Scheduler => ({
  ...options,
  isDraining: false,
  scheduledOn: undefined,
  timer: undefined
})

/**
 * Drains in a task of the head's dispatcher. An immediate drain would nest: a resumed head runs at once as far as it
 * can, and its end drains again, so a long queue of short effects would overflow the stack.
 */
export const drainSoon = (scheduler: Scheduler): void => {
  const head = scheduler.head()
  // Only on the head's own dispatcher: that of another fiber may run late, or never again if its program has ended.
  if (head === undefined || scheduler.isDraining || scheduler.scheduledOn === head) return
  scheduler.scheduledOn = head
  head.currentDispatcher.scheduleTask(() => {
    if (scheduler.scheduledOn === head) scheduler.scheduledOn = undefined
    drainNow(scheduler)
  }, 0)
}

/** Drains now, unless it is already draining. */
export const drainNow = (scheduler: Scheduler): void => {
  if (scheduler.isDraining) return
  scheduler.isDraining = true
  let isDone = false
  try {
    isDone = scheduler.drain()
  } finally {
    scheduler.isDraining = false
    // `isDone` is false also after an exception, which an observer of a resumed fiber may throw.
    if (!isDone) drainSoon(scheduler)
  }
}

/** Drains at an instant, instead of any instant set before; Infinity sets none. */
export const drainAt = (scheduler: Scheduler, context: AnyFiber["context"], now: number, until: number): void => {
  if (scheduler.timer?.until === until) return
  stop(scheduler)
  if (until === Infinity) return
  const fiber = Effect.runForkWith(context)(scheduler.clock.sleep(sleepAtMost(until - now)))
  const timer: Timer = { fiber, until }
  scheduler.timer = timer
  const end = () => {
    if (scheduler.timer !== timer) return
    scheduler.timer = undefined
    drainNow(scheduler)
  }
  // With some clocks a sleep ends at once.
  if (fiber.pollUnsafe() === undefined) fiber.addObserver(end)
  else fiber.currentDispatcher.scheduleTask(end, 0)
}

export const stop = (scheduler: Scheduler): void => {
  const { timer } = scheduler
  scheduler.timer = undefined
  timer?.fiber.interruptUnsafe()
}

/** A duration in whole microseconds, rounded down, at least one. */
const sleepAtMost = (nanos: number): Duration.Duration => {
  const whole = Math.max(1, Math.floor(nanos / 1e3 + 0.1)) * 1e3
  // Multiples of 1/8 ms are exact as floating-point milliseconds. Others are shortened by 1 ns: no sum is then too late.
  return Duration.millis((whole % 125e3 === 0 ? whole : whole - 1) / 1e6)
}
