/** Waits until calls wait in a throttle, or hold permits of it. */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Options from "../internal/options.ts"
import * as Throttle from "../Throttle.ts"

/**
 * Something whose waiting and running calls are counted: a throttle, or a `Throttle.Service` class, which is required then.
 *
 * @see {@link waitUntilWaiting} and {@link waitUntilRunning}, which take it
 * @category models
 * @since 0.1.0
 */
export interface Watched<out R = never> {
  readonly statistics: Effect.Effect<Throttle.Statistics, never, R>
}

/** The number of times other fibers may run before the test fails. */
const maxYields = 10_000

const atLeast = (caller: string, which: "waiting" | "running") =>
(
  ...[first, second]: [n: number] | [throttle: Watched<any>, n: number]
): Effect.Effect<void, never, any> =>
  Effect.gen(function*() {
    const [{ statistics }, received] = Predicate.hasProperty(first, "statistics") ? [first, second] : [Throttle, first]
    const n = Options.read(`Testing.${caller}`, "n", Options.integer(1), received)
    for (let yields = 0;; yields++) {
      const now = yield* statistics
      if (now[which] >= n) return
      if (yields === maxYields) {
        throw new Error(
          `Testing.${caller}: expected at least ${n} ${which} calls, found ${now[which]} after ${maxYields} yields ` +
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
 * After calls are forked and before the test looks at the queue, interrupts a waiting call or adjusts the clock. A test need
 * not know how many yields the fibers take.
 *
 * **Details**
 *
 * Watches the provided throttle, or the one given first: a throttle, or a `Throttle.Service` class. It yields to other
 * fibers and lets no time pass: where a call sleeps before it requests permits, adjust the clock first. The yields bound the
 * wait, so that a mistaken test fails with a message. `Throttle.awaitQueue` waits as long as it takes.
 *
 * **Errors**
 *
 * None. Dies with an `Error` that says how many calls wait and how many were expected if there are fewer after 10,000
 * yields, and with a `RangeError` if `n` is not an integer ≥ 1.
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
 * @see {@link waitUntilRunning} for calls that hold permits
 * @see {@link Throttle.awaitQueue}, which waits without a bound
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
 * To be sure that forked calls were admitted and run.
 *
 * **Details**
 *
 * As {@link waitUntilWaiting}. Calls hold permits only where the policy has a permit-based part: `concurrency`, or `spacing`
 * from the end. With any other policy `running` is always 0 and this dies.
 *
 * **Errors**
 *
 * None. Dies with an `Error` that says how many calls run and how many were expected if there are fewer after 10,000
 * yields, and with a `RangeError` if `n` is not an integer ≥ 1.
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
 * @see {@link waitUntilWaiting} for calls in the queue
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
