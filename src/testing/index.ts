/**
 * What tests of throttled code need: to wait until calls wait, and a throttle that answers by a script and records what it
 * was asked.
 *
 * @since 0.1.0
 * @module
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { format } from "effect/Formatter"
import { dual } from "effect/Function"
import * as HashMap from "effect/HashMap"
import * as HashSet from "effect/HashSet"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Ref from "effect/Ref"
import type * as Types from "effect/Types"
import * as Throttle from "../Throttle.ts"
import { PermitsExceedCapacity, QueueFull, ThrottleError, TimedOut, WaitTooLong } from "../ThrottleError.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Waiting until calls wait or run
// ---------------------------------------------------------------------------------------------------------------------

/**
 * What can be watched: a throttle, or a `Throttle.Service` class, which then is needed.
 *
 * @see {@link waitUntilWaiting} and {@link waitUntilRunning}, which take it
 * @category models
 * @since 0.1.0
 */
export interface Watched<out R = never> {
  readonly statistics: Effect.Effect<Throttle.Statistics, never, R>
}

/** So often other fibers may run before a test is told that it waits in vain. */
const maxYields = 10_000

const atLeast = (caller: string, which: "waiting" | "running") =>
(
  ...[first, second]: [n: number] | [throttle: Watched<any>, n: number]
): Effect.Effect<void, never, any> =>
  Effect.gen(function*() {
    const [{ statistics }, n] = Predicate.hasProperty(first, "statistics") ? [first, second] : [Throttle, first]
    if (!Number.isSafeInteger(n) || n! < 1) {
      throw new RangeError(`${caller}: n must be a whole number of at least 1, got ${format(n)}`)
    }
    for (let yields = 0;; yields++) {
      const now = yield* statistics
      if (now[which] >= n!) return
      if (yields === maxYields) {
        throw new Error(
          `${caller}: ${now[which]} ${which} after ${maxYields} yields, expected at least ${n} ` +
            `(waiting ${now.waiting}, running ${now.running}, admitted ${now.admitted})`
        )
      }
      yield* Effect.yieldNow
    }
  })

/**
 * Lets other fibers run until at least `n` calls wait in the throttle.
 *
 * **When to use**
 *
 * After forking calls, before looking at the line, interrupting a waiter or adjusting the clock: no guess at how many
 * yields the fibers need.
 *
 * **Details**
 *
 * Of the provided throttle, or of the one given first: a throttle, or a `Throttle.Service` class. It yields to other
 * fibers and lets no time pass, so calls that sleep before they ask are not waited for: adjust the clock first.
 *
 * **Errors**
 *
 * None. Dies with an `Error` that says how many wait and how many were expected if there are fewer after 10,000 yields,
 * and with a `RangeError` if `n` is not a whole number of at least 1.
 *
 * **Example**
 *
 * ```ts
 * import { Effect, Fiber } from "effect"
 * import { Throttle } from "effect-throttle"
 * import * as Testing from "effect-throttle/testing"
 *
 * const program = Effect.gen(function*() {
 *   yield* Throttle.wait()
 *   const fibers = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(Throttle.wait()))
 *   yield* Testing.waitUntilWaiting(3)
 *   yield* Fiber.interruptAll(fibers)
 *   return yield* Throttle.statistics
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.rate({ limit: 1 })))) // { admitted: 1, interrupted: 3, … }
 * ```
 *
 * @see {@link waitUntilRunning} for those who hold permits
 * @category waiting
 * @since 0.1.0
 */
export const waitUntilWaiting: {
  /**
   * Lets other fibers run until at least `n` calls wait in the provided throttle; no time passes. Dies with an `Error` if
   * there are fewer after 10,000 yields.
   */
  (n: number): Effect.Effect<void, never, Throttle.Throttle>
  /**
   * Lets other fibers run until at least `n` calls wait in this throttle, or the throttle of this `Throttle.Service` class;
   * no time passes. Dies with an `Error` if there are fewer after 10,000 yields.
   */
  <R = never>(throttle: Watched<R>, n: number): Effect.Effect<void, never, R>
} = atLeast("waitUntilWaiting", "waiting")

/**
 * Lets other fibers run until at least `n` calls hold permits of the throttle.
 *
 * **When to use**
 *
 * To be sure that forked calls have been let in and are at work.
 *
 * **Details**
 *
 * As {@link waitUntilWaiting}. Calls hold permits only where the policy has a part that counts those who run:
 * `concurrency`, or `spacing` from the end. With any other policy `running` is always 0 and this dies.
 *
 * **Errors**
 *
 * None. Dies with an `Error` that says how many run and how many were expected if there are fewer after 10,000 yields,
 * and with a `RangeError` if `n` is not a whole number of at least 1.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 * import * as Testing from "effect-throttle/testing"
 *
 * class Database extends Throttle.Service<Database>()("app/Database", Throttle.concurrency({ limit: 2 })) {}
 *
 * const program = Effect.gen(function*() {
 *   yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(Effect.never.pipe(Database.withPermit)))
 *   yield* Testing.waitUntilRunning(Database, 2)
 *   return yield* Database.statistics
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Database.layer))) // { running: 2, … }
 * ```
 *
 * @see {@link waitUntilWaiting} for those in line
 * @category waiting
 * @since 0.1.0
 */
export const waitUntilRunning: {
  /**
   * Lets other fibers run until at least `n` calls hold permits of the provided throttle; no time passes. Dies with an
   * `Error` if there are fewer after 10,000 yields.
   */
  (n: number): Effect.Effect<void, never, Throttle.Throttle>
  /**
   * Lets other fibers run until at least `n` calls hold permits of this throttle, or the throttle of this
   * `Throttle.Service` class; no time passes. Dies with an `Error` if there are fewer after 10,000 yields.
   */
  <R = never>(throttle: Watched<R>, n: number): Effect.Effect<void, never, R>
} = atLeast("waitUntilRunning", "running")

// ---------------------------------------------------------------------------------------------------------------------
// The script: what a recorder answers
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Lets a call start: at once, or when it has waited for so long. A wait is longer than 0; an infinite one lasts until the
 * call is interrupted.
 *
 * @category models
 * @since 0.1.0
 */
export type Admission = "admit" | { readonly wait: Duration.Input }

/**
 * Refuses a call at once with a `ThrottleError` of this reason, and this `retryAfter` if there is one.
 *
 * The rest of the reason is plain: the recorder's name, the cost, how many wait, no parts, and 0 for the limit.
 *
 * @category models
 * @since 0.1.0
 */
export type Rejection =
  | { readonly reject: "QueueFull" | "WaitTooLong" | "TimedOut"; readonly retryAfter?: Duration.Input | undefined }
  | { readonly reject: "PermitsExceedCapacity"; readonly retryAfter?: undefined }

/**
 * What a recorder says to a call.
 *
 * @see {@link Options} for the script made of them
 * @category models
 * @since 0.1.0
 */
export type Answer = Admission | Rejection

/**
 * Options of {@link make}, {@link layer} and {@link layerFor}.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<out A extends Answer = Answer> {
  /** The answers to the first calls, one a call, in the order in which they ask. Default: none. */
  readonly script?: ReadonlyArray<A> | undefined
  /** The answer to every call after those of the script. Default: "admit". */
  readonly otherwise?: A | undefined
  /** What errors call it. Default: "recorder"; of a Service class the policy's name, or the class's key. */
  readonly name?: string | undefined
}

// ---------------------------------------------------------------------------------------------------------------------
// The record: what a recorder was asked
// ---------------------------------------------------------------------------------------------------------------------

/**
 * A call that asked to start, and what became of it so far.
 *
 * @see {@link Asked} for all that a recorder can be asked
 * @category models
 * @since 0.1.0
 */
export interface Call {
  readonly method: "withPermit" | "withPermits" | "withPermitsIfAvailable" | "wait" | "takeScoped" | "usePermits"
  /** As it was given; 1 where none was. */
  readonly cost: Throttle.Cost
  /** "none": `withPermitsIfAvailable` found none available. "interrupted": while it waited. */
  readonly outcome: "waiting" | "admitted" | "rejected" | "none" | "interrupted"
  /** Why it was rejected. */
  readonly reason?: Rejection["reject"]
  /** What its permit was settled for. */
  readonly settled?: Throttle.Cost
  /** Its permit was cancelled. */
  readonly cancelled?: true
}

/**
 * Something that a recorder was asked: a call that would start, or one of the methods that start nothing. Only
 * `statistics` leaves no trace.
 *
 * @see {@link Recorder} for where it comes from
 * @category models
 * @since 0.1.0
 */
export type Asked =
  | Call
  | { readonly method: "nextAvailable"; readonly cost: Throttle.Cost }
  | { readonly method: "pause"; readonly duration: Duration.Duration }
  | { readonly method: "resume" }
  | { readonly method: "update"; readonly policy: Throttle.PolicyData }

/**
 * A throttle that answers by a script, and the record of what it was asked.
 *
 * @see {@link make} to make one
 * @see {@link layer} to provide one
 * @category models
 * @since 0.1.0
 */
export interface Recorder {
  /** To be given to the code under test. */
  readonly throttle: Throttle.Throttle
  /** All that it was asked so far, in the order in which it was asked. */
  readonly asked: Effect.Effect<ReadonlyArray<Asked>>
}

/**
 * The key of the recorder that {@link layer} provides.
 *
 * @see {@link recorderOf} for the recorder of a Service class
 * @category services
 * @since 0.1.0
 */
export const Recorder: Context.Service<Recorder, Recorder> = Context.Service<Recorder>(
  "effect-throttle/testing/Recorder"
)

/**
 * The recorder of a Service class, as a requirement.
 *
 * @see {@link recorderOf} for its key
 * @category models
 * @since 0.1.0
 */
export interface RecorderOf<in out Self> {
  readonly "~effect-throttle/testing/RecorderOf": Types.Invariant<Self>
}

/**
 * The key of the recorder that {@link layerFor} provides beside a `Throttle.Service` class.
 *
 * **When to use**
 *
 * To read what the throttle of one class was asked. Each class has a recorder of its own, so a test can provide several.
 *
 * **Example**
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { Throttle } from "effect-throttle"
 * import * as Testing from "effect-throttle/testing"
 *
 * class GitHub extends Throttle.Service<GitHub>()("app/GitHub", Throttle.rate({ limit: 10 })) {}
 * class OpenAI extends Throttle.Service<OpenAI>()("app/OpenAI", Throttle.rate({ limit: 1 })) {}
 *
 * const program = Effect.gen(function*() {
 *   yield* GitHub.withPermit(Effect.void)
 *   const recorder = yield* Testing.recorderOf(GitHub)
 *   return yield* recorder.asked
 * })
 *
 * const recorders = Layer.mergeAll(Testing.layerFor(GitHub), Testing.layerFor(OpenAI))
 * await Effect.runPromise(program.pipe(Effect.provide(recorders))) // [{ method: "withPermit", cost: 1, … }]
 * ```
 *
 * @see {@link layerFor} to provide it
 * @category services
 * @since 0.1.0
 */
export const recorderOf = <Self>(
  service: Context.Key<Self, Throttle.Throttle>
): Context.Service<RecorderOf<Self>, Recorder> =>
  Context.Service<RecorderOf<Self>, Recorder>(`effect-throttle/testing/Recorder/${service.key}`)

// ---------------------------------------------------------------------------------------------------------------------
// Making and providing one
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Makes a throttle that answers by a script and records what it is asked; each run of this effect makes a new one.
 *
 * **When to use**
 *
 * To test what code does with its throttle and with a refusal, where the policy is not the point: which calls it makes, at
 * what cost, what it settles, whether it pauses everybody when the server says so.
 *
 * **Details**
 *
 * Each of `withPermit`, `withPermits`, `withPermitsIfAvailable`, `wait`, `takeScoped` and `usePermits` takes the next answer
 * of the script, then `otherwise`. There is no line: each call waits for as long as it was told, on the caller's Clock, and
 * may be overtaken. Interrupted meanwhile, it counts as interrupted. `withPermitsIfAvailable` never waits: whatever does not
 * admit it gives `Option.none`, but `PermitsExceedCapacity`, with which it fails.
 *
 * `nextAvailable` tells of the next answer and leaves it: zero for "admit", the wait, the `retryAfter`, and else none.
 * `pause`, `resume` and `update` are only recorded: the script alone decides. Every unit of a cost is accepted.
 *
 * Its statistics are those of a throttle without a limit: all calls let in are `running` until they end, but those of `wait`,
 * which hold nothing; `waited` adds up what the script said. It writes no logs, spans, metrics or events.
 *
 * **Errors**
 *
 * The throttle refuses with `ThrottleError` where the script says so. It dies with a `RangeError` for a cost that is not a
 * whole number of at least 0, a pause that is no duration and an update that is no policy; such calls take no answer and are
 * not recorded. `make` throws a `RangeError` at once for bad options.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as Testing from "effect-throttle/testing"
 *
 * const program = Effect.gen(function*() {
 *   const { asked, throttle } = yield* Testing.make({ script: [{ reject: "QueueFull", retryAfter: "2 seconds" }] })
 *   const search = throttle.withPermits(Effect.succeed("found"), { tokens: 5 })
 *   yield* Effect.catchTag(search, "ThrottleError", (error) => throttle.pause(error.retryAfter ?? "1 second"))
 *   yield* search
 *   return yield* asked
 * })
 *
 * await Effect.runPromise(program)
 * // [
 * //   { method: "withPermits", cost: { tokens: 5 }, outcome: "rejected", reason: "QueueFull" },
 * //   { method: "pause", duration: Duration.seconds(2) },
 * //   { method: "withPermits", cost: { tokens: 5 }, outcome: "admitted" }
 * // ]
 * ```
 *
 * @see {@link layer} to provide it as the `Throttle` service
 * @see {@link layerFor} to provide it as a Service class
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options = {}): Effect.Effect<Recorder> =>
  fromSettings(settle("Testing.make", options, "recorder"))

/**
 * The Layer of a recorder, as the generic `Throttle` service and as {@link Recorder}.
 *
 * **When to use**
 *
 * Where the code under test asks for the generic service.
 *
 * **Details**
 *
 * Options and answers are those of {@link make}. Each call gives another Layer, and each build of it another recorder.
 * A policy used inline asks its own limiter and not this one: what is to be replaced in a test asks for a service.
 *
 * **Errors**
 *
 * The Layer never fails. Throws a `RangeError` at once for bad options.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 * import * as Testing from "effect-throttle/testing"
 *
 * const fetchTeam = Effect.succeed("team").pipe(Throttle.withPermit)
 *
 * const program = Effect.gen(function*() {
 *   yield* fetchTeam
 *   const recorder = yield* Testing.Recorder
 *   return yield* recorder.asked
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Testing.layer()))) // [{ method: "withPermit", cost: 1, … }]
 * ```
 *
 * @see {@link layerFor} for a Service class
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<Throttle.Throttle | Recorder> =>
  provided(Throttle.Throttle, Recorder, settle("Testing.layer", options, "recorder"))

/**
 * The Layer of a recorder, as a `Throttle.Service` class and as {@link recorderOf} that class.
 *
 * **When to use**
 *
 * Instead of the class's own `layer`, in a test.
 *
 * **Details**
 *
 * Options and answers are those of {@link make}. A class whose policy has no bounds promises that `withPermit` cannot fail,
 * so the compiler takes no `reject` for it. A policy used inline asks its own limiter, also where it is the class's policy.
 *
 * **Errors**
 *
 * The Layer never fails. Throws a `RangeError` at once for bad options.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 * import * as Testing from "effect-throttle/testing"
 *
 * const policy = Throttle.rate({ limit: 10, per: "1 second", maxQueue: 100 })
 *
 * class GitHub extends Throttle.Service<GitHub>()("app/GitHub", policy) {}
 *
 * const program = Effect.succeed("repo").pipe(
 *   GitHub.withPermit,
 *   Effect.catchTag("ThrottleError", () => Effect.succeed("from the cache"))
 * )
 *
 * const busy = Testing.layerFor(GitHub, { otherwise: { reject: "QueueFull" } })
 * await Effect.runPromise(program.pipe(Effect.provide(busy))) // "from the cache"
 * ```
 *
 * @see {@link recorderOf} to read what it was asked
 * @category layers
 * @since 0.1.0
 */
export const layerFor: {
  /**
   * Makes the Layer of a recorder in place of a `Throttle.Service` class whose calls cannot fail: it answers by the options,
   * which must not reject, and records what was asked; {@link recorderOf} the class reads it. Throws a `RangeError` for bad
   * options.
   */
  <Self, Id extends string, U extends string>(
    service: Throttle.ServiceClass<Self, Id, never, U>,
    options?: Options<Admission>
  ): Layer.Layer<Self | RecorderOf<Self>>
  /**
   * Makes the Layer of a recorder in place of a `Throttle.Service` class whose calls may fail: it answers by the options, and
   * records what was asked; {@link recorderOf} the class reads it. Throws a `RangeError` for bad options.
   */
  <Self, Id extends string, U extends string>(
    service: Throttle.ServiceClass<Self, Id, ThrottleError, U>,
    options?: Options
  ): Layer.Layer<Self | RecorderOf<Self>>
} = <Self>(
  service: Context.Key<Self, Throttle.Throttle> & { readonly policy: Throttle.Policy<any> },
  options: Options = {}
): Layer.Layer<Self | RecorderOf<Self>> =>
  provided(
    service,
    recorderOf(service),
    settle("Testing.layerFor", options, service.policy.data.name ?? service.key)
  )

const provided = <Self, R>(
  service: Context.Key<Self, Throttle.Throttle>,
  key: Context.Key<R, Recorder>,
  settings: Settings
): Layer.Layer<Self | R> =>
  Layer.effectContext(
    Effect.map(
      fromSettings(settings),
      (recorder) => Context.add(Context.make(service, recorder.throttle), key, recorder)
    )
  )

// --- the state: all of it, and how it changes ---

interface State {
  /** How many calls have had their answer. */
  readonly answered: number
  /** By their place in the order in which they came. */
  readonly asked: HashMap.HashMap<number, Asked>
  /** The calls that hold permits. */
  readonly held: HashSet.HashSet<number>
  readonly statistics: Omit<Throttle.Statistics, "running">
}

const empty: State = {
  answered: 0,
  asked: HashMap.empty(),
  held: HashSet.empty(),
  statistics: {
    admitted: 0,
    rejected: { QueueFull: 0, WaitTooLong: 0, TimedOut: 0, PermitsExceedCapacity: 0 },
    interrupted: 0,
    waiting: 0,
    waited: Duration.zero,
    longestWait: Duration.zero
  }
}

const record = (asked: Asked) => (state: State): State => ({
  ...state,
  asked: HashMap.set(state.asked, HashMap.size(state.asked), asked)
})

const callOf = (state: State, id: number): Call => HashMap.getUnsafe(state.asked, id) as Call

const note = (state: State, id: number, news: Partial<Call>): State => ({
  ...state,
  asked: HashMap.set(state.asked, id, { ...callOf(state, id), ...news })
})

const count = (state: State, news: Partial<State["statistics"]>): State => ({
  ...state,
  statistics: { ...state.statistics, ...news }
})

const admit = (id: number) => (state: State): State => {
  const admitted = count(note(state, id, { outcome: "admitted" }), { admitted: state.statistics.admitted + 1 })
  return callOf(state, id).method === "wait" ? admitted : { ...admitted, held: HashSet.add(state.held, id) }
}

const endWait = (id: number, waited: Duration.Duration, isAdmitted: boolean) => (state: State): State => {
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

const giveBack = (id: number) => (state: State): State => ({ ...state, held: HashSet.remove(state.held, id) })

/** Counts the first time, and while the permit is held. */
const settleOnce = (id: number, news: Pick<Call, "settled" | "cancelled">) => (state: State): State =>
  HashSet.has(state.held, id) && callOf(state, id).settled === undefined ? note(state, id, news) : state

const cancel = (id: number) => (state: State): State => {
  const after = settleOnce(id, { cancelled: true })(state)
  return after === state ? state : giveBack(id)(after)
}

type Decision =
  | { readonly _tag: "Admitted" | "None"; readonly id: number }
  | { readonly _tag: "Waits"; readonly id: number; readonly wait: Duration.Duration }
  | { readonly _tag: "Refused"; readonly error: ThrottleError }

const answerOf = ({ otherwise, script }: Settings, state: State): SettledAnswer => script[state.answered] ?? otherwise

/** Takes the next answer. */
const decide =
  (settings: Settings, method: Call["method"], cost: Throttle.Cost) => (state: State): readonly [Decision, State] => {
    const id = HashMap.size(state.asked)
    const answer = answerOf(settings, state)
    const came = (call: Pick<Call, "outcome" | "reason">) =>
      record({ method, cost, ...call })({ ...state, answered: state.answered + 1 })
    if (answer._tag === "Admit") return [{ _tag: "Admitted", id }, admit(id)(came({ outcome: "admitted" }))]
    const isNever = answer._tag === "Reject" && answer.reason === "PermitsExceedCapacity"
    if (method === "withPermitsIfAvailable" && !isNever) return [{ _tag: "None", id }, came({ outcome: "none" })]
    const { rejected, waiting } = state.statistics
    if (answer._tag === "Wait") {
      return [{ _tag: "Waits", id, wait: answer.wait }, count(came({ outcome: "waiting" }), { waiting: waiting + 1 })]
    }
    const { reason } = answer
    return [
      { _tag: "Refused", error: refusal(settings.name, answer, cost, waiting) },
      count(came({ outcome: "rejected", reason }), { rejected: { ...rejected, [reason]: rejected[reason] + 1 } })
    ]
  }

const refusal = (
  throttle: string,
  { reason, retryAfter }: SettledAnswer & { _tag: "Reject" },
  asked: Throttle.Cost,
  queued: number
): ThrottleError => {
  const cost = typeof asked === "number" ? { permits: asked } : asked
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
  }
}

const foreseen = (answer: SettledAnswer): Option.Option<Duration.Duration> => {
  switch (answer._tag) {
    case "Admit":
      return Option.some(Duration.zero)
    case "Wait":
      return Duration.isFinite(answer.wait) ? Option.some(answer.wait) : Option.none()
    case "Reject":
      return Option.fromUndefinedOr(answer.retryAfter)
  }
}

// --- the throttle ---

type Restore = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** A copy, so that a record stays what it was. */
const copied = (cost: Throttle.Cost): Throttle.Cost => typeof cost === "number" ? cost : { ...cost }

const fromSettings = Effect.fnUntraced(function*(settings: Settings): Effect.fn.Return<Recorder> {
  const state = yield* Ref.make(empty)
  // A throttle without a limit, of which nothing is asked but whether a cost and a pause make sense: its rules are the rules.
  const judge = yield* Throttle.of(Throttle.all([], { name: settings.name }))
  const checked = (cost: Throttle.Cost = 1) => Effect.as(judge.nextAvailable(cost), copied(cost))

  /** Does what the answer says. Nothing but the wait can be interrupted, so that what is admitted is given back. */
  const enter = Effect.fnUntraced(
    function*(
      method: Call["method"],
      cost: Throttle.Cost,
      restore: Restore
    ): Effect.fn.Return<Option.Option<number>, ThrottleError> {
      const decision = yield* Ref.modify(state, decide(settings, method, cost))
      switch (decision._tag) {
        case "Admitted":
          return Option.some(decision.id)
        case "None":
          return Option.none()
        case "Refused":
          return yield* Effect.fail(decision.error)
        case "Waits": {
          const { id, wait } = decision
          const waits = Duration.isFinite(wait) ? Effect.sleep(wait) : Effect.never
          yield* Effect.onExit(
            restore(waits),
            (exit) => Ref.update(state, endWait(id, wait, Exit.isSuccess(exit)))
          )
          return Option.some(id)
        }
      }
    }
  )

  const permitOf = (id: number, cost: Throttle.Cost): Throttle.Permit => ({
    cost,
    settle: (actual) => Effect.flatMap(checked(actual), (settled) => Ref.update(state, settleOnce(id, { settled }))),
    cancel: Ref.update(state, cancel(id))
  })

  const use = <A, E, R>(
    method: Call["method"],
    given: Throttle.Cost,
    f: (permit: Throttle.Permit) => Effect.Effect<A, E, R>
  ): Effect.Effect<Option.Option<A>, E | ThrottleError, R> =>
    Effect.uninterruptibleMask(Effect.fnUntraced(function*(restore) {
      const cost = yield* checked(given)
      const id = yield* enter(method, cost, restore)
      if (Option.isNone(id)) return Option.none()
      const run = Effect.suspend(() => restore(f(permitOf(id.value, cost))))
      return Option.some(yield* Effect.ensuring(run, Ref.update(state, giveBack(id.value))))
    }))

  const usePermits = <A, E, R>(
    method: Call["method"],
    cost: Throttle.Cost,
    f: (permit: Throttle.Permit) => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | ThrottleError, R> => Effect.map(use(method, cost, f), Option.getOrThrow)

  const throttle: Throttle.Throttle = {
    withPermit: (self) => usePermits("withPermit", 1, () => self),
    withPermits: dual(
      (args) => Effect.isEffect(args[0]),
      <A, E, R>(self: Effect.Effect<A, E, R>, cost: Throttle.Cost) => usePermits("withPermits", cost, () => self)
    ),
    withPermitsIfAvailable: dual(
      (args) => Effect.isEffect(args[0]),
      <A, E, R>(self: Effect.Effect<A, E, R>, cost: Throttle.Cost) => use("withPermitsIfAvailable", cost, () => self)
    ),
    wait: (given) =>
      Effect.uninterruptibleMask(Effect.fnUntraced(function*(restore) {
        yield* enter("wait", yield* checked(given), restore)
      })),
    takeScoped: (given) =>
      Effect.uninterruptibleMask(Effect.fnUntraced(function*(restore) {
        const cost = yield* checked(given)
        const id = Option.getOrThrow(yield* enter("takeScoped", cost, restore))
        yield* Effect.addFinalizer(() => Ref.update(state, giveBack(id)))
        return permitOf(id, cost)
      })),
    usePermits: dual(
      (args) => Predicate.isFunction(args[0]),
      <A, E, R>(f: (permit: Throttle.Permit) => Effect.Effect<A, E, R>, cost: Throttle.Cost) =>
        usePermits("usePermits", cost, f)
    ),
    nextAvailable: Effect.fnUntraced(function*(given) {
      const cost = yield* checked(given)
      const before = yield* Ref.getAndUpdate(state, record({ method: "nextAvailable", cost }))
      return foreseen(answerOf(settings, before))
    }),
    pause: Effect.fnUntraced(function*(duration) {
      yield* judge.pause(duration)
      yield* Ref.update(state, record({ method: "pause", duration: Duration.fromInputUnsafe(duration) }))
    }),
    resume: Ref.update(state, record({ method: "resume" })),
    update: (policy) =>
      Effect.suspend(() => {
        if (Throttle.isPolicy(policy)) return Ref.update(state, record({ method: "update", policy: policy.data }))
        throw new RangeError(`throttle ${format(settings.name)}: a policy is needed here, got ${format(policy)}`)
      }),
    statistics: Effect.map(Ref.get(state), ({ held, statistics }) => ({ ...statistics, running: HashSet.size(held) }))
  }

  return {
    throttle,
    asked: Effect.map(
      Ref.get(state),
      ({ asked }) => Array.from({ length: HashMap.size(asked) }, (_, id) => HashMap.getUnsafe(asked, id))
    )
  }
})

// --- settings ---

type SettledAnswer =
  | { readonly _tag: "Admit" }
  | { readonly _tag: "Wait"; readonly wait: Duration.Duration }
  | {
    readonly _tag: "Reject"
    readonly reason: Rejection["reject"]
    readonly retryAfter?: Duration.Duration
  }

interface Settings {
  readonly name: string
  readonly script: ReadonlyArray<SettledAnswer>
  readonly otherwise: SettledAnswer
}

const reasons = Object.keys(empty.statistics.rejected)

/** Checks what the user wrote, and fills in the defaults. */
const settle = (caller: string, options: Options, nameOtherwise: string): Settings => {
  const insist = (holds: boolean, what: string, got: unknown): void => {
    if (!holds) throw new RangeError(`${caller}: ${what}, got ${format(got)}`)
  }
  const insistKeys = (where: string, value: object, known: ReadonlyArray<string>): void => {
    for (const key of Object.keys(value)) {
      insist(known.includes(key), `${where} must be one of ${known.join(", ")}`, key)
    }
  }
  const durationOf = (where: string, input: Duration.Input, allowed: string, holds: (millis: number) => boolean) => {
    const duration = Option.getOrUndefined(Duration.fromInput(input))
    insist(duration !== undefined && holds(Duration.toMillis(duration)), `${where} must be ${allowed}`, input)
    return duration!
  }
  const answer = (where: string, value: Answer): SettledAnswer => {
    if (value === "admit") return { _tag: "Admit" }
    const isWait = Predicate.hasProperty(value, "wait")
    insist(
      isWait !== Predicate.hasProperty(value, "reject"),
      `${where} must be "admit", { wait } or { reject }`,
      value
    )
    if ("wait" in value) {
      insistKeys(`a key of ${where}`, value, ["wait"])
      const wait = durationOf(`${where}.wait`, value.wait, "a duration longer than 0", (millis) => millis > 0)
      return { _tag: "Wait", wait }
    }
    const { retryAfter } = value
    const reject: Rejection["reject"] = value.reject
    insistKeys(`a key of ${where}`, value, ["reject", "retryAfter"])
    insist(reasons.includes(reject), `${where}.reject must be one of ${reasons.join(", ")}`, reject)
    if (retryAfter === undefined) return { _tag: "Reject", reason: reject }
    insist(reject !== "PermitsExceedCapacity", `${where}.retryAfter must be absent with ${reject}`, retryAfter)
    return {
      _tag: "Reject",
      reason: reject,
      retryAfter: durationOf(
        `${where}.retryAfter`,
        retryAfter,
        "a finite duration of at least 0",
        (millis) => millis >= 0 && millis < Infinity
      )
    }
  }

  insist(Predicate.isObject(options), "options must be an object", options)
  insistKeys("an option", options, ["script", "otherwise", "name"])
  const { name = nameOtherwise, otherwise = "admit", script = [] } = options
  insist(Predicate.isString(name) && name !== "", "name must be a non-empty string", name)
  insist(Array.isArray(script), "script must be an array of answers", script)
  return {
    name,
    script: Array.from(script, (value, i) => answer(`script[${i}]`, value)),
    otherwise: answer("otherwise", otherwise)
  }
}
