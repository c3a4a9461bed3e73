/** The record of a recorder: all of its state, and the transitions from one state to the next. */
import * as Duration from "effect/Duration"
import * as HashMap from "effect/HashMap"
import * as HashSet from "effect/HashSet"
import type * as Throttle from "../Throttle.ts"
import { Draining, PermitsExceedCapacity, QueueFull, ThrottleError, TimedOut, WaitTooLong } from "../ThrottleError.ts"
import type { Reason, Settings, Settled } from "./script.ts"
import * as Script from "./script.ts"

/**
 * A call that requested permits, and its outcome so far.
 *
 * @see {@link Asked} for all that a recorder records
 * @category models
 * @since 0.1.0
 */
export interface Call {
  readonly method:
    | "withPermit"
    | "withPermits"
    | "withPermitsIfAvailable"
    | "wait"
    | "allow"
    | "takeScoped"
    | "usePermits"
  /** The cost as it was given; 1 where none was. */
  readonly cost: Throttle.Cost
  /** "none": `withPermitsIfAvailable` returned `Option.none()`, or `allow` false. "interrupted": while it waited. */
  readonly outcome: "waiting" | "admitted" | "rejected" | "none" | "interrupted"
  /** Why it was rejected. */
  readonly reason?: Reason
  /** The actual cost that its permit was settled to. */
  readonly settled?: Throttle.Cost
  /** Its permit was cancelled. */
  readonly cancelled?: true
}

/**
 * A use of a recorder: a call that requested permits, or a method that starts nothing. Reading `statistics` and `remaining`,
 * and waiting with `awaitIdle` and `awaitQueue`, are not recorded.
 *
 * @see {@link Recorder}, which records them
 * @category models
 * @since 0.1.0
 */
export type Asked =
  | Call
  | { readonly method: "estimateWait"; readonly cost: Throttle.Cost }
  | { readonly method: "pause"; readonly duration: Duration.Duration }
  | { readonly method: "resume" | "reset" }
  | { readonly method: "update"; readonly policy: Throttle.PolicyData }
  | { readonly method: "drain"; readonly deadline?: Duration.Duration }

/** The state of a recorder. */
export interface State {
  /** The number of calls that were answered. */
  readonly answered: number
  /** By order of arrival. */
  readonly asked: HashMap.HashMap<number, Asked>
  /** The calls that hold permits. */
  readonly held: HashSet.HashSet<number>
  readonly statistics: Omit<Throttle.Statistics, "running">
}

/** The state before the first call. */
export const empty: State = {
  answered: 0,
  asked: HashMap.empty(),
  held: HashSet.empty(),
  statistics: {
    admitted: 0,
    rejected: { QueueFull: 0, WaitTooLong: 0, TimedOut: 0, PermitsExceedCapacity: 0, Draining: 0 },
    interrupted: 0,
    waiting: 0,
    waited: Duration.zero,
    longestWait: Duration.zero
  }
}

/** The statistics of the throttle. */
export const statistics = ({ held, statistics }: State): Throttle.Statistics => ({
  ...statistics,
  running: HashSet.size(held)
})

/** The whole record, in order of arrival. */
export const all = ({ asked }: State): ReadonlyArray<Asked> =>
  Array.from({ length: HashMap.size(asked) }, (_, id) => HashMap.getUnsafe(asked, id))

// ---------------------------------------------------------------------------------------------------------------------
// Transitions
// ---------------------------------------------------------------------------------------------------------------------

/** Adds to the record. */
export const record = (asked: Asked) => (state: State): State => ({
  ...state,
  asked: HashMap.set(state.asked, HashMap.size(state.asked), asked)
})

const callOf = (state: State, id: number): Call => HashMap.getUnsafe(state.asked, id) as Call

const note = (state: State, id: number, change: Partial<Call>): State => ({
  ...state,
  asked: HashMap.set(state.asked, id, { ...callOf(state, id), ...change })
})

const count = (state: State, change: Partial<State["statistics"]>): State => ({
  ...state,
  statistics: { ...state.statistics, ...change }
})

const admit = (id: number) => (state: State): State => {
  const admitted = count(note(state, id, { outcome: "admitted" }), { admitted: state.statistics.admitted + 1 })
  const { method } = callOf(state, id)
  return method === "wait" || method === "allow" ? admitted : { ...admitted, held: HashSet.add(state.held, id) }
}

/** A call's wait ends: it starts, or was interrupted. */
export const endWait = (id: number, waited: Duration.Duration, isAdmitted: boolean) => (state: State): State => {
  const { statistics } = state
  const left = count(state, { waiting: statistics.waiting - 1 })
  if (!isAdmitted) {
    return count(note(left, id, { outcome: "interrupted" }), { interrupted: statistics.interrupted + 1 })
  }
  return admit(id)(count(left, {
    waited: Duration.sum(statistics.waited, waited),
    longestWait: Duration.max(statistics.longestWait, waited)
  }))
}

/** Releases the permits of a call. */
export const release = (id: number) => (state: State): State => ({ ...state, held: HashSet.remove(state.held, id) })

/** Only the first settlement counts, and only while the permit is held. */
export const settle = (id: number, change: Pick<Call, "settled" | "cancelled">) => (state: State): State =>
  HashSet.has(state.held, id) && callOf(state, id).settled === undefined ? note(state, id, change) : state

/** Cancels the permit of a call, which releases it. */
export const cancel = (id: number) => (state: State): State => {
  const after = settle(id, { cancelled: true })(state)
  return after === state ? state : release(id)(after)
}

// ---------------------------------------------------------------------------------------------------------------------
// Answers
// ---------------------------------------------------------------------------------------------------------------------

/** The answer to a call, and its number in the record. */
export type Decision =
  | { readonly _tag: "Admitted" | "None"; readonly id: number }
  | { readonly _tag: "Waits"; readonly id: number; readonly wait: Duration.Duration }
  | { readonly _tag: "Rejected"; readonly error: ThrottleError }

/** The answer to the next call. */
export const nextAnswer = ({ otherwise, script }: Settings, state: State): Settled =>
  script[state.answered] ?? otherwise

/** Answers a call. */
export const answer =
  (settings: Settings, method: Call["method"], cost: Throttle.Cost) => (state: State): readonly [Decision, State] => {
    const id = HashMap.size(state.asked)
    const answer = nextAnswer(settings, state)
    const recorded = (call: Pick<Call, "outcome" | "reason">) =>
      record({ method, cost, ...call })({ ...state, answered: state.answered + 1 })
    if (answer._tag === "Admit") return [{ _tag: "Admitted", id }, admit(id)(recorded({ outcome: "admitted" }))]
    const neverWaits = answer._tag === "Reject" && !Script.isForWaiting(answer.reason)
    const mustNotWait = method === "withPermitsIfAvailable" || method === "allow"
    if (mustNotWait && !neverWaits) return [{ _tag: "None", id }, recorded({ outcome: "none" })]
    const { rejected, waiting } = state.statistics
    if (answer._tag === "Wait") {
      return [
        { _tag: "Waits", id, wait: answer.wait },
        count(recorded({ outcome: "waiting" }), { waiting: waiting + 1 })
      ]
    }
    const { reason } = answer
    return [
      { _tag: "Rejected", error: errorOf(settings.name, answer, cost, waiting) },
      count(recorded({ outcome: "rejected", reason }), { rejected: { ...rejected, [reason]: rejected[reason] + 1 } })
    ]
  }

const errorOf = (
  throttle: string,
  { reason, retryAfter }: Settled & { readonly _tag: "Reject" },
  requested: Throttle.Cost,
  queued: number
): ThrottleError => {
  const cost = typeof requested === "number" ? { permits: requested } : requested
  const common = { throttle, cost, queued, parts: [] }
  const retryable = { ...common, ...(retryAfter === undefined ? undefined : { retryAfter }) }
  switch (reason) {
    case "QueueFull":
      return new ThrottleError({ reason: new QueueFull({ ...retryable, limit: 0 }) })
    case "WaitTooLong":
      return new ThrottleError({ reason: new WaitTooLong({ ...retryable, limit: Duration.zero }) })
    case "TimedOut":
      return new ThrottleError({ reason: new TimedOut({ ...retryable, limit: Duration.zero }) })
    case "PermitsExceedCapacity":
      return new ThrottleError({ reason: new PermitsExceedCapacity({ ...common, limit: 0 }) })
    case "Draining":
      return new ThrottleError({ reason: new Draining(common) })
  }
}
