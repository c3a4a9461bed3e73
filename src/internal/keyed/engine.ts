/**
 * The engine of a key, and the numbers of all keys.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { ThrottleError } from "../../ThrottleError.ts"
import * as Admission from "../admission.ts"
import * as Budget from "../budget.ts"
import * as Control from "../control.ts"
import * as Counts from "../counts.ts"
import * as Demand from "../demand.ts"
import * as Engine from "../engine.ts"
import * as Estimate from "../estimate.ts"
import * as Finish from "../finish.ts"
import * as Local from "../local.ts"
import * as Metrics from "../metrics.ts"
import type { Plan } from "../plan.ts"
import * as Remaining from "../remaining.ts"
import type { Policy } from "../service.ts"
import * as Shadow from "../shadow.ts"
import * as Time from "../time.ts"
import * as Watch from "../watch.ts"
import * as Calls from "./calls.ts"
import * as Keyed from "./keyed.ts"
import * as Lending from "./lending.ts"
import * as Sweep from "./sweep.ts"

const one: Calls.DemandOf = ({ one }) => one

/** Returns the function that resolves a cost for a key's policy. */
export const demanding = (cost: Demand.Cost | undefined): Calls.DemandOf =>
  cost === undefined ? one : (parts) => Engine.demandOf(parts, cost)

/** Returns the function that resolves the cost of an operation that never releases permits. */
const holdingNothing = (cost: Demand.Cost | undefined, operation: "wait" | "allow"): Calls.DemandOf => {
  const demandOf = demanding(cost)
  return (parts) => {
    const demand = demandOf(parts)
    Engine.checkHoldsNothing(parts.plan, operation)
    return demand
  }
}

/** The engine of a key. A class, since a small object is made for each keyed operation. */
export class KeyEngine<K> implements Engine.Engine {
  readonly keyed: Keyed.Keyed<K>
  readonly key: K
  constructor(keyed: Keyed.Keyed<K>, key: K) {
    this.keyed = keyed
    this.key = key
  }
  get name() {
    return this.keyed.name
  }
  plan() {
    return Calls.peek(this.keyed, this.key).plan
  }
  run<A, E, R>(self: Effect.Effect<A, E, R>, cost: Demand.Cost | undefined) {
    return Calls.run(this.keyed, this.key, demanding(cost), self)
  }
  runIfAvailable<A, E, R>(self: Effect.Effect<A, E, R>, cost: Demand.Cost | undefined) {
    return Calls.runIfAvailable(this.keyed, this.key, demanding(cost), self)
  }
  wait(cost: Demand.Cost | undefined) {
    return Calls.run(this.keyed, this.key, holdingNothing(cost, "wait"), Effect.void)
  }
  allow(cost: Demand.Cost | undefined) {
    return Calls.allow(this.keyed, this.key, holdingNothing(cost, "allow"))
  }
  take(cost: Demand.Cost | undefined): Effect.Effect<Admission.Permit, ThrottleError, Scope.Scope> {
    return Calls.use(
      this.keyed,
      this.key,
      demanding(cost),
      (limiter, demand) => Admission.take(limiter, demand, "scope")
    )
  }
  use<A, E, R>(use: (permit: Admission.Permit) => Effect.Effect<A, E, R>, cost: Demand.Cost | undefined) {
    return Calls.use(this.keyed, this.key, demanding(cost), (limiter, demand) => Admission.use(limiter, demand, use))
  }
  open(demand: Demand.Demand) {
    return Calls.open(this.keyed, this.key, demand)
  }
  needsRoom() {
    return Calls.needsRoom(this.keyed, this.key)
  }
  arrival(demand: Demand.Demand) {
    return Calls.arrival(this.keyed, this.key, ({ plan }) => Demand.forPlan(plan, demand))
  }
  estimateWait(cost: Demand.Cost | undefined) {
    const { key, keyed } = this
    const limiter = Lending.lentTo(keyed, Keyed.canonical(keyed, key))?.limiter
    const view = limiter ?? Calls.peek(keyed, key)
    const demand = demanding(cost)(view)
    return Effect.succeed(
      keyed.phase !== "open"
        ? Option.none()
        : limiter === undefined
        ? Estimate.wait(view, demand, Keyed.now(keyed))
        : Control.estimateWait(limiter, demand)
    )
  }
  remaining() {
    const { key, keyed } = this
    const limiter = Lending.lentTo(keyed, Keyed.canonical(keyed, key))?.limiter
    if (limiter !== undefined) return Effect.succeed(Control.remaining(limiter))
    const view = Calls.peek(keyed, key)
    return Effect.succeed(
      Remaining.report(keyed.phase === "open" ? view : { ...view, phase: keyed.phase }, Keyed.now(keyed))
    )
  }
  pause(nanos: number) {
    // An idle key starts no call anyway while the map drains.
    if (this.keyed.phase === "draining" && this.lent() === undefined) return Effect.void
    return Calls.use(
      this.keyed,
      this.key,
      one,
      (limiter) => Control.pause(limiter, Fiber.getCurrent()!, nanos) ?? Effect.void
    )
  }
  resume() {
    const { key, keyed } = this
    const lent = keyed.lent.get(Keyed.canonical(keyed, key))
    if (lent !== undefined) {
      Control.resume(lent.limiter)
      Lending.takeBackIfOver(keyed, lent)
    }
    return Effect.void
  }
  update(policy: Policy<any>) {
    update(this.keyed, this.key, this.keyed.planFor(policy))
    return Effect.void
  }
  reset() {
    reset(this.keyed, this.key)
    return Effect.void
  }
  statistics() {
    const { key, keyed } = this
    const lent = keyed.lent.get(Keyed.canonical(keyed, key))
    return Effect.succeed(lent === undefined ? Counts.statistics(Counts.none()) : Control.statistics(lent.limiter))
  }
  /** The key refuses newcomers until its calls have ended: without any it is left as it is, also in a pause. */
  drain(nanos: number) {
    const { key, keyed } = this
    return Effect.acquireUseRelease(
      Effect.sync(() => {
        const lent = Lending.lentTo(keyed, Keyed.canonical(keyed, key))
        if (lent === undefined || !Lending.hasCalls(lent)) return undefined
        lent.users++
        return lent
      }),
      (lent) => lent === undefined ? Effect.succeed(0) : Finish.drain(Finish.ofLimiter(lent.limiter, true), nanos),
      (lent) =>
        Effect.sync(() => {
          if (lent === undefined) return
          lent.users--
          Lending.takeBackIfOver(keyed, lent)
        })
    )
  }
  awaitIdle() {
    return Watch.until(this.keyed.counts.watchers, () => {
      const lent = this.lent()
      return lent === undefined || Finish.isIdle(lent.limiter)
    })
  }
  awaitQueue(calls: number) {
    return Watch.until(this.keyed.counts.watchers, () => {
      const lent = this.lent()
      return lent !== undefined && Finish.hasQueue(lent.limiter, calls)
    })
  }
  /** The limiter of the key, if it has one. */
  lent(): Keyed.Lent | undefined {
    return this.keyed.lent.get(Keyed.canonical(this.keyed, this.key))
  }
}

/**
 * The engine of `map.get(key)`. The type of its pause has no `KeysExhausted`, so a pause has no effect if the map has
 * no room for the key.
 */
export class Handle<K> extends KeyEngine<K> {
  override pause(nanos: number) {
    return Effect.ignore(super.pause(nanos))
  }
}

/** Replaces the plan of a key that has a limiter or is remembered. */
const update = <K>(keyed: Keyed.Keyed<K>, given: K, plan: Plan): void => {
  const key = Keyed.canonical(keyed, given)
  if (keyed.phase === "closed" || (Lending.lentTo(keyed, key) === undefined && !keyed.idle.has(key))) return
  const lent = Calls.find(keyed, key)!
  lent.kind = Keyed.kindFor(keyed, plan)
  Control.update(lent.limiter, lent.kind.plan)
  Lending.takeBackIfOver(keyed, lent)
}

/** Forgets what a key has spent and owes. */
const reset = <K>(keyed: Keyed.Keyed<K>, given: K): void => {
  const key = Keyed.canonical(keyed, given)
  const lent = Lending.lentTo(keyed, key)
  if (lent !== undefined) {
    Control.reset(lent.limiter)
    Lending.takeBackIfOver(keyed, lent)
    return
  }
  const idle = keyed.idle.get(key)
  if (idle === undefined) return
  idle.charged = Budget.initial(idle.kind.plan)
  Sweep.forgetIfInitial(keyed, idle, Keyed.now(keyed))
}

/** Returns the numbers of all keys together. */
export const total = <K>(keyed: Keyed.Keyed<K>): Counts.Statistics => {
  const sum = Counts.none()
  Counts.add(sum, keyed.counts.own)
  for (const { limiter } of keyed.lent.values()) {
    Shadow.advance(limiter, Time.now(limiter.time))
    Counts.add(sum, limiter.counts.own)
  }
  return Counts.statistics(sum)
}

/** All keys of a map, to be drained. */
export const finishing = <K>(keyed: Keyed.Keyed<K>): Finish.Finishing => {
  const { counts, lent, time } = keyed
  const limiters = () => Array.from(lent.values(), ({ limiter }) => limiter)
  return {
    clock: time.clock,
    watchers: counts.watchers,
    refuseNewcomers: () => {
      if (keyed.phase === "closed") return
      keyed.phase = "draining"
      Metrics.countDraining(counts.series)
      for (const limiter of limiters()) Finish.refuseNewcomers(limiter, true)
    },
    isIdle: Finish.all(() => lent.values(), ({ limiter }) => Finish.isIdle(limiter)),
    interruptRest: () => Finish.sum(limiters(), Finish.interruptRest),
    isRestOver: Finish.all(() => lent.values(), ({ limiter }) => Finish.isRestOver(limiter))
  }
}

/** Closes a map: waiting calls of all keys are interrupted, and so are later ones. */
export const closeAll = <K>(keyed: Keyed.Keyed<K>): void => {
  if (keyed.phase === "closed") return
  Metrics.release(keyed.counts.series)
  keyed.phase = "closed"
  for (const { limiter } of keyed.lent.values()) Local.close(limiter)
}
