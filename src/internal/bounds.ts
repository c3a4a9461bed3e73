/**
 * The bounds of one call, besides those of the policy, and the deadlines of waiting calls.
 *
 * Calls without bounds of their own have the timeout of the plan, so their deadlines expire by arrival. The others are in
 * a heap.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import type * as Fiber from "effect/Fiber"
import * as Heap from "./heap.ts"
import * as Options from "./options.ts"

/** @see Throttle.CallBounds */
export interface CallBounds {
  readonly maxWait?: Duration.Duration | undefined
  readonly timeout?: Duration.Duration | undefined
}

const none: CallBounds = {}

export const CallBounds: Context.Reference<CallBounds> = Context.Reference("effect-throttle/Throttle/CallBounds", {
  defaultValue: () => none
})

const rules = { maxWait: Options.finiteDuration, timeout: Options.finiteDuration }

/** Checks bounds. Throws a `RangeError` for an invalid or unknown one. */
export const read = (where: string, options: unknown): CallBounds => {
  const { maxWait, timeout } = Options.readAll(where, rules, options)
  return {
    ...(maxWait === undefined ? undefined : { maxWait: Duration.millis(maxWait) }),
    ...(timeout === undefined ? undefined : { timeout: Duration.millis(timeout) })
  }
}

/** The bounds of one waiting call, in nanoseconds. */
export interface Own<out W> {
  readonly maxWait: number
  readonly timeout: number
  /** Its place among the calls with bounds of their own. */
  readonly deadline: Heap.Node<W>
}

/** A waiting call; `own` is undefined if it has no bounds of its own. */
interface Bounded<W> {
  readonly arrival: number
  own: Own<W> | undefined
}

interface Plan {
  readonly maxWait: number
  readonly timeout: number
}

interface Host<W> {
  readonly plan: Plan
  readonly waiters: { readonly first: W | undefined }
  readonly bounded: Heap.Heap<W>
}

/** Makes the heap of the waiting calls that have bounds of their own, by deadline. */
export const deadlines = <W extends Bounded<W>>(): Heap.Heap<W> => Heap.make((a, b) => ownDeadline(a) < ownDeadline(b))

const nanos = (duration: Duration.Duration | undefined): number =>
  duration === undefined ? Infinity : Duration.toMillis(duration) * 1e6

/** Gives a call that is to wait the bounds of its fiber. */
export const apply = <W extends Bounded<W>>(fiber: Fiber.Fiber<unknown, unknown>, waiter: W): void => {
  const own = ofCall(fiber)
  if (own !== undefined) waiter.own = { ...own, deadline: Heap.node(waiter) }
}

/** The bounds of the calls that a fiber makes, in nanoseconds; undefined if it sets none. */
export const ofCall = (fiber: Fiber.Fiber<unknown, unknown>): Omit<Own<never>, "deadline"> | undefined => {
  const bounds = fiber.getRef(CallBounds)
  return bounds === none ? undefined : { maxWait: nanos(bounds.maxWait), timeout: nanos(bounds.timeout) }
}

export const add = <W extends Bounded<W>>({ bounded }: Host<W>, { own }: W): void => {
  if (own !== undefined) Heap.place(bounded, own.deadline)
}

export const remove = <W extends Bounded<W>>({ bounded }: Host<W>, { own }: W): void => {
  if (own !== undefined) Heap.remove(bounded, own.deadline)
}

const ownDeadline = ({ arrival, own }: Bounded<any>): number => arrival + own!.timeout

/** The time for which a call may wait, in nanoseconds. */
export const timeoutOf = (plan: Plan, own: Own<unknown> | undefined): number =>
  own === undefined ? plan.timeout : Math.min(plan.timeout, own.timeout)

/** The longest wait that may be expected of a call, in nanoseconds. */
export const maxWaitOf = (plan: Plan, own: Pick<Own<unknown>, "maxWait"> | undefined): number =>
  own === undefined ? plan.maxWait : Math.min(plan.maxWait, own.maxWait)

/** The last instant at which a waiting call may become ready. */
export const deadlineOf = (plan: Plan, { arrival, own }: Bounded<any>): number => arrival + timeoutOf(plan, own)

/** The waiting call with the earliest deadline. */
export const earliest = <W extends Bounded<W>>({ bounded, plan, waiters: { first } }: Host<W>): W | undefined => {
  const own = Heap.first(bounded)
  return own === undefined || first === undefined || deadlineOf(plan, first) <= ownDeadline(own) ? first : own
}
