/**
 * Calls of a key. A call of an idle key that holds nothing and may start at once is decided by the key's charges,
 * without a limiter; for any other call the key gets one.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Option from "effect/Option"
import { KeysExhausted, ThrottleError } from "../../ThrottleError.ts"
import * as Admission from "../admission.ts"
import type { Host, Restore } from "../backend.ts"
import * as Bounds from "../bounds.ts"
import * as Budget from "../budget.ts"
import * as Counts from "../counts.ts"
import * as Demand from "../demand.ts"
import type { Opened } from "../engine.ts"
import * as Errors from "../errors.ts"
import * as Arrival from "../levels/arrival.ts"
import type { Limiter, View } from "../limiter.ts"
import * as Observe from "../observe.ts"
import * as Waiters from "../waiter.ts"
import * as Keyed from "./keyed.ts"
import * as Lending from "./lending.ts"
import * as Sweep from "./sweep.ts"

/** Resolves the cost of a call for a key's policy. Throws a `RangeError` for an invalid cost. */
export type DemandOf = (parts: Pick<Host<never>, "one" | "plan">) => Demand.Demand

type Rejected = Effect.Effect<never, ThrottleError>

/** Runs an effect once the key's throttle admits it. Must be called in a step of the fiber that will run the effect. */
export const run = <K, A, E, R>(
  keyed: Keyed.Keyed<K>,
  key: K,
  demandOf: DemandOf,
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | ThrottleError, R> => {
  const started = startIdle(keyed, key, demandOf)
  if (started === "started") return self
  if (Effect.isEffect(started)) return started
  return withLimiter(
    keyed,
    key,
    demandOf,
    (limiter, demand, restore) => Admission.runMasked(limiter, demand, self, restore)
  )
}

/**
 * Runs an effect only if no wait is needed, and returns its value as `Option.some`; otherwise returns `Option.none()`.
 */
export const runIfAvailable = <K, A, E, R>(
  keyed: Keyed.Keyed<K>,
  key: K,
  demandOf: DemandOf,
  self: Effect.Effect<A, E, R>
): Effect.Effect<Option.Option<A>, E | ThrottleError, R> => {
  const started = startIdle(keyed, key, demandOf)
  if (started === "started") return Effect.asSome(self)
  if (started === "not ready") return Effect.succeedNone
  if (Effect.isEffect(started)) return started
  return withLimiter(
    keyed,
    key,
    demandOf,
    (limiter, demand, restore) => Admission.runIfAvailableMasked(limiter, demand, self, restore)
  )
}

/** The results of {@link allow}, made once. */
const allowed = Effect.succeed(true)
const notAllowed = Effect.succeed(false)

/** Charges a call of a key that holds nothing, if it may start in this step; returns whether it did. */
export const allow = <K>(
  keyed: Keyed.Keyed<K>,
  key: K,
  demandOf: DemandOf
): Effect.Effect<boolean, ThrottleError> => {
  const started = startIdle(keyed, key, demandOf)
  if (started === "started") return allowed
  if (started === "not ready") return notAllowed
  if (Effect.isEffect(started)) return started
  return withLimiter(keyed, key, demandOf, Admission.allowMasked)
}

/** Starts a call that will hold nothing, of a key without a limiter, if it may start in this step. */
const startIdle = <K>(
  keyed: Keyed.Keyed<K>,
  given: K,
  demandOf: DemandOf
): "started" | "not ready" | "needs a limiter" | Rejected => {
  const refused = refusal(keyed, given, demandOf)
  if (refused !== undefined) return refused
  Sweep.countCall(keyed)
  const key = Keyed.canonical(keyed, given)
  if (Lending.lentTo(keyed, key) !== undefined) return "needs a limiter"
  const now = Keyed.now(keyed)
  const idle = Keyed.idleOf(keyed, key, now)
  const { kind } = idle
  const demand = demandOf(kind.view)
  const excess = exceeds(keyed, kind, demand)
  if (excess !== undefined) return excess
  if (!kind.holdsNothing) return "needs a limiter"
  const next = Budget.chargeIfReady(kind.view, idle.charged, demand, now)
  // Before room is made: no key is evicted for a call that does not start.
  if (next === undefined) return "not ready"
  if (!idle.isRemembered && !Sweep.makeRoom(keyed)) return exhausted(keyed, demand.cost)
  admit(keyed, idle, next)
  return "started"
}

/** Counts a start of a key without a limiter, and remembers the key's charges. */
export const admit = <K>(keyed: Keyed.Keyed<K>, idle: Keyed.Idle, charged: Budget.Charged): void => {
  Counts.admitted(keyed.counts, false)
  idle.charged = charged
  Keyed.remember(keyed, idle)
}

/** Runs a call on the limiter of its key. */
const withLimiter = <K, A, E, R>(
  keyed: Keyed.Keyed<K>,
  key: K,
  demandOf: DemandOf,
  f: (limiter: Limiter, demand: Demand.Demand, restore: Restore) => Effect.Effect<A, E | ThrottleError, R>
): Effect.Effect<A, E | ThrottleError, R> =>
  // The limiter is used in the step that finds it: one step later it may be lent to another key.
  Effect.uninterruptibleMask((restore): Effect.Effect<A, E | ThrottleError, R> => {
    const refused = refusal(keyed, key, demandOf)
    if (refused !== undefined) return restore(refused)
    const lent = find(keyed, key)
    if (lent === undefined) return exhausted(keyed, demandOf(peek(keyed, key)).cost)
    const running = f(lent.limiter, demandOf(lent.limiter), restore)
    Lending.takeBackIfOver(keyed, lent)
    return running
  })

/** Uses the limiter of a key, which keeps it until the effect ends. */
export const use = <K, A, E, R>(
  keyed: Keyed.Keyed<K>,
  given: K,
  demandOf: DemandOf,
  f: (limiter: Limiter, demand: Demand.Demand) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | ThrottleError, R> =>
  Effect.uninterruptibleMask((restore): Effect.Effect<A, E | ThrottleError, R> => {
    const refused = refusal(keyed, given, demandOf)
    if (refused !== undefined) return restore(refused)
    Sweep.countCall(keyed)
    const key = Keyed.canonical(keyed, given)
    const found = Lending.lentTo(keyed, key)
    const kind = found?.kind ?? Keyed.idleOf(keyed, key, Keyed.now(keyed)).kind
    const demand = demandOf(kind.view)
    const excess = found === undefined ? exceeds(keyed, kind, demand) : undefined
    if (excess !== undefined) return restore(excess)
    const lent = found ?? find(keyed, key)
    if (lent === undefined) return restore(exhausted(keyed, demand.cost))
    lent.users++
    return Effect.onExitPrimitive(restore(Effect.suspend(() => f(lent.limiter, demand))), () => {
      lent.users--
      Lending.takeBackIfOver(keyed, lent)
      return undefined
    }, true)
  })

/** Whether room must be made for a key before it may have a limiter. */
export const needsRoom = <K>(keyed: Keyed.Keyed<K>, given: K): boolean => {
  if (Keyed.size(keyed) < keyed.options.maxKeys) return false
  const key = Keyed.canonical(keyed, given)
  return Lending.lentTo(keyed, key) === undefined && !Keyed.idleOf(keyed, key, Keyed.now(keyed)).isRemembered
}

/** A call of a key as one of several levels, to be used in this step. Does not make the map remember the key. */
export const arrival = <K>(keyed: Keyed.Keyed<K>, given: K, demandOf: DemandOf): Arrival.Arrival => {
  const key = Keyed.canonical(keyed, given)
  const lent = Lending.lentTo(keyed, key)
  if (lent !== undefined) return Arrival.ofLimiter(lent.limiter, demandOf(lent.limiter))
  const now = Keyed.now(keyed)
  const { charged, kind } = Keyed.idleOf(keyed, key, now)
  const view = Keyed.viewOf(kind, charged)
  return { view, counts: keyed.counts, demand: demandOf(view), now, own: Bounds.ofCall(Fiber.getCurrent()!) }
}

/** Gives a key a limiter until it is closed; an effect that replaces the call if the map has no room for the key. */
export const open = <K>(keyed: Keyed.Keyed<K>, given: K, demand: Demand.Demand): Opened | Rejected => {
  const refused = refusal(keyed, given, ({ plan }) => Demand.forPlan(plan, demand))
  if (refused !== undefined) return refused
  Sweep.countCall(keyed)
  const lent = find(keyed, given)
  if (lent === undefined) return exhausted(keyed, demand.cost)
  lent.users++
  return {
    limiter: lent.limiter,
    close: () => {
      lent.users--
      Lending.takeBackIfOver(keyed, lent)
    }
  }
}

/** Returns the limiter of a key, lending one if it has none; undefined if the map has no room for the key. */
export const find = <K>(keyed: Keyed.Keyed<K>, given: K): Keyed.Lent | undefined => {
  const key = Keyed.canonical(keyed, given)
  const found = Lending.lentTo(keyed, key)
  if (found !== undefined) return found
  const idle = Keyed.idleOf(keyed, key, Keyed.now(keyed))
  return idle.isRemembered || Sweep.makeRoom(keyed) ? Lending.lend(keyed, key, idle) : undefined
}

/** Returns the view of a key, to be used in this step. Does not make the map remember the key. */
export const peek = <K>(keyed: Keyed.Keyed<K>, given: K): View => {
  const key = Keyed.canonical(keyed, given)
  const lent = Lending.lentTo(keyed, key)
  if (lent !== undefined) return lent.limiter
  const { charged, kind } = Keyed.idleOf(keyed, key, Keyed.now(keyed))
  return Keyed.viewOf(kind, charged)
}

// ---------------------------------------------------------------------------------------------------------------------
// Rejections
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Returns the effect that replaces a newcomer; undefined if the map admits newcomers. While it drains, the limiter of a
 * key with waiting or running calls decides.
 */
const refusal = <K>(keyed: Keyed.Keyed<K>, key: K, demandOf: DemandOf): Rejected | undefined => {
  if (keyed.phase === "open") return undefined
  if (keyed.phase === "closed") return Effect.interrupt
  if (Lending.lentTo(keyed, Keyed.canonical(keyed, key)) !== undefined) return undefined
  const view = peek(keyed, key)
  const demand = demandOf(view)
  return Waiters.rejection(
    { counts: keyed.counts, plan: view.plan },
    Fiber.getCurrent()!,
    demand,
    Errors.draining(view, demand),
    0
  )
}

/**
 * Rejects a call that demands more than can ever be granted, without remembering its key; undefined if it may be
 * granted.
 */
const exceeds = <K>(
  { counts }: Keyed.Keyed<K>,
  { plan, view }: Keyed.Kind,
  demand: Demand.Demand
): Rejected | undefined =>
  demand.exceeds === undefined || plan.shadow
    ? undefined
    : Waiters.rejection(
      { counts, plan },
      Fiber.getCurrent()!,
      demand,
      Errors.exceeds({ ...view, charged: undefined as never }, demand),
      0
    )

/** Rejects a call for whose key the map has no room. */
const exhausted = <K>({ keys, name, options: { maxKeys } }: Keyed.Keyed<K>, cost: Demand.Cost): Rejected => {
  keys.refused++
  keys.refusedMetric.count++
  const error = new ThrottleError({
    reason: new KeysExhausted({
      throttle: name,
      cost: Demand.byUnit(cost),
      queued: 0,
      parts: [],
      limit: maxKeys
    })
  })
  const notice = Observe.notify(Fiber.getCurrent()!, "Rejected", () => ({
    _tag: "Rejected",
    throttle: name,
    policy: `at most ${maxKeys} keys`,
    cost,
    waited: 0,
    error
  }))
  return notice === undefined ? Effect.fail(error) : Effect.andThen(notice, Effect.fail(error))
}
