/**
 * The operations of several throttles as levels.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import type { ThrottleError } from "../../ThrottleError.ts"
import * as Admission from "../admission.ts"
import type { Host, Restore } from "../backend.ts"
import * as Demand from "../demand.ts"
import * as Engine from "../engine.ts"
import * as Errors from "../errors.ts"
import type { Limiter } from "../limiter.ts"
import * as Operations from "../operations.ts"
import * as Options from "../options.ts"
import * as Plan from "../plan.ts"
import type { Throttle } from "../service.ts"
import * as Waiters from "../waiter.ts"
import * as Arrival from "./arrival.ts"
import * as Levels from "./levels.ts"

/** An engine whose limiter can be opened: here, or on a store. */
export interface Opening<L> extends Omit<Engine.Engine, "open"> {
  readonly open: (demand: Demand.Demand) => Engine.Opened<L> | Effect.Effect<never, ThrottleError>
}

/** Makes the operations. Throws a `RangeError` for what is not a list of throttles that can be charged in one step. */
export const make = (throttles: ReadonlyArray<Throttle>): Throttle => {
  const engines = read(throttles)
  const levels = engines.find((engine) => engine.levels !== undefined)?.levels
  return Operations.make(
    levels === undefined ? engineOf(engines as ReadonlyArray<Opening<Limiter>>, Levels.make) : levels(engines)
  )
}

export const where = "Throttle.levels"

const read = (throttles: ReadonlyArray<Throttle>): ReadonlyArray<Engine.Engine> => {
  Options.read(where, "throttles", Options.array, throttles)
  if (throttles.length === 0) throw Options.invalid(where, "throttles", "at least one throttle", throttles)
  return throttles.map((throttle, i) => {
    const name = `throttles[${i}]`
    if (!Predicate.isObject(throttle)) throw Options.invalid(where, name, "a throttle", throttle)
    const engine = Operations.engineOf(throttle)
    if (engine?.open === undefined && engine?.levels === undefined) {
      throw new RangeError(
        `${where}: "${name}" must be a throttle of this process or of a store, since all levels are charged in one step`
      )
    }
    return engine
  })
}

/** The units that any level counts; undefined if a level accepts every unit. */
const unitsOf = (engines: ReadonlyArray<Opening<unknown>>): ReadonlySet<string> | undefined => {
  const units = engines.map((engine) => engine.plan()?.units)
  return units.some((one) => one === undefined) ? undefined : new Set(units.flatMap((one) => [...one!]))
}

const none = Plan.make({ _tag: "None" })

/** A level that is to be opened for a call. */
interface Opener<L> {
  readonly open: () => Engine.Opened<L> | Effect.Effect<never, ThrottleError>
  readonly needsRoom: (() => boolean) | undefined
  readonly arrival: (() => Arrival.Arrival) | undefined
}

/**
 * Opens the limiters of all levels in this step, and closes them when the effect that `f` makes of them ends. Returns
 * `onRejected` of the effect that replaces the call, if a map has no room for a key or is drained. `unavailable` replaces
 * a call that may not wait, and that would start at no level.
 */
const open = <L, A, E, R, E2>(
  name: string,
  openers: ReadonlyArray<Opener<L>>,
  f: (limiters: ReadonlyArray<L>) => Effect.Effect<A, E, R>,
  onRejected: (rejection: Effect.Effect<never, ThrottleError>, level: number) => Effect.Effect<never, E2>,
  unavailable?: Effect.Effect<A>
): Effect.Effect<A, E | E2, R> => {
  if (openers.some(({ needsRoom }) => needsRoom?.() === true)) {
    const stop = Arrival.firstStop(openers.map(({ arrival }) => arrival!()))
    if (stop !== undefined && unavailable !== undefined && stop.reason !== "PermitsExceedCapacity") return unavailable
    if (stop?.reason !== undefined) return onRejected(reject(stop, stop.reason), stop.level)
  }
  const opened: Array<Engine.Opened<L>> = []
  const close = () => {
    for (const one of opened) one.close()
  }
  for (const [level, opener] of openers.entries()) {
    let one: Engine.Opened<L> | Effect.Effect<never, ThrottleError>
    try {
      one = opener.open()
    } catch (defect) {
      close()
      throw defect
    }
    if (Effect.isEffect(one)) {
      close()
      return onRejected(one, level)
    }
    opened.push(one)
  }
  const limiters = opened.map(({ limiter }) => limiter)
  if (new Set(limiters).size < limiters.length) {
    close()
    throw new RangeError(`${where}: each level must be another throttle, received ${name}`)
  }
  return Effect.onExitPrimitive(f(limiters), () => {
    close()
    return undefined
  }, true)
}

const reject = (
  { counts, demand, now, own, view }: Arrival.Stop,
  reason: Errors.Reason
): Effect.Effect<never, ThrottleError> =>
  Waiters.rejection(
    { counts, plan: view.plan },
    Fiber.getCurrent()!,
    demand,
    Errors.make(view, demand, now, reason, undefined, own),
    0
  )

/** A level of a call that costs each level another amount. */
export interface Level extends Opener<Limiter> {
  readonly name: string
  readonly demandOf: (parts: Pick<Limiter, "one" | "plan">) => Demand.Demand
}

/** A rejection, and the level that rejected the call. */
export interface Rejected {
  readonly error: ThrottleError
  readonly level: number
}

/**
 * Takes permits at every level, all or none, until the scope closes, which only this fiber may do (`endedBy: "call"`).
 * `onGranted` as in `Admission.take`; `cancelAt` cancels what one level has charged.
 */
export const takeEach = (
  levels: ReadonlyArray<Level>,
  onGranted: (permit: Admission.Permit, cancelAt: (level: number) => Effect.Effect<void>) => void
): Effect.Effect<unknown, Rejected, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    open(
      levels.map(({ name }) => name).join(", "),
      levels,
      (limiters) => {
        const opened = Levels.make(limiters, none, limiters.map((limiter, i) => levels[i]!.demandOf(limiter)))
        return restore(Effect.mapError(
          Admission.take(
            opened,
            opened.one,
            "call",
            (permit, grant) => onGranted(permit, (level) => Levels.cancelAt(opened, grant, level))
          ),
          (error): Rejected => ({ error, level: opened.level })
        ))
      },
      (rejection, level) => restore(Effect.mapError(rejection, (error): Rejected => ({ error, level })))
    )
  )

/** `make` makes the levels of one call. */
export const engineOf = <L extends { readonly plan: Plan.Plan }, S extends { readonly limiters: ReadonlyArray<L> }>(
  engines: ReadonlyArray<Opening<L>>,
  make: (limiters: ReadonlyArray<L>, plan: Plan.Plan) => S & Host<S>
): Engine.Engine => {
  const name = engines.map((engine) => engine.name).join(", ")
  const demandOf = (cost: Demand.Cost | undefined): Demand.Demand =>
    Demand.make({ ...none, name, units: unitsOf(engines) }, cost ?? 1)

  /** Uses the limiters of all levels in the step that opens them, until the effect ends. */
  const use = <A, E, R>(
    cost: Demand.Cost | undefined,
    f: (levels: S & Host<S>, demand: Demand.Demand, restore: Restore) => Effect.Effect<A, E, R>,
    unavailable?: Effect.Effect<A>
  ): Effect.Effect<A, E | ThrottleError, R> =>
    Effect.uninterruptibleMask((restore): Effect.Effect<A, E | ThrottleError, R> => {
      const demand = demandOf(cost)
      return open(
        name,
        engines.map((engine) => ({
          open: () => engine.open(demand),
          needsRoom: engine.needsRoom && (() => engine.needsRoom!()),
          arrival: engine.arrival && (() => engine.arrival!(demand))
        })),
        (limiters) => f(make(limiters, demand.plan), demand, restore),
        restore,
        unavailable
      )
    })

  const holdingNothing = (operation: "wait" | "allow"): void => {
    for (const engine of engines) Engine.checkHoldsNothing(engine.plan()!, operation)
  }

  const unsupported = (operation: string) => () => {
    throw new RangeError(`${where}: ${operation} is an operation of each throttle, not of its levels together`)
  }

  /** The part of a cost that a level counts. */
  const costFor = (engine: Opening<L>, cost: Demand.Cost | undefined): Demand.Cost => {
    const units = engine.plan()?.units
    const amounts = { permits: 1, ...Demand.byUnit(cost ?? 1) }
    return Object.fromEntries(Object.entries(amounts).filter(([unit]) => units === undefined || units.has(unit)))
  }

  return {
    name,
    plan: () => undefined,
    run: (self, cost) => use(cost, (levels, demand, restore) => Admission.runMasked(levels, demand, self, restore)),
    runIfAvailable: (self, cost) =>
      use(
        cost,
        (levels, demand, restore) => Admission.runIfAvailableMasked(levels, demand, self, restore),
        Effect.succeedNone
      ),
    wait: (cost) => {
      holdingNothing("wait")
      return use(cost, (levels, demand, restore) => Admission.runMasked(levels, demand, Effect.void, restore))
    },
    allow: (cost) => {
      holdingNothing("allow")
      return use(cost, Admission.allowMasked, Effect.succeed(false))
    },
    take: (cost) => use(cost, (levels, demand, restore) => restore(Admission.take(levels, demand, "scope"))),
    use: (f, cost) => use(cost, (levels, demand, restore) => restore(Admission.use(levels, demand, f))),
    estimateWait: (cost) =>
      Effect.suspend(() => {
        demandOf(cost)
        return Effect.map(
          Effect.forEach(engines, (engine) => engine.estimateWait(costFor(engine, cost))),
          (waits) => Option.map(Option.all(waits), (all) => all.reduce(Duration.max, Duration.zero))
        )
      }),
    remaining: () => Effect.map(Effect.forEach(engines, (engine) => engine.remaining()), (parts) => parts.flat()),
    reset: unsupported("reset"),
    pause: unsupported("pause"),
    resume: unsupported("resume"),
    update: unsupported("update"),
    drain: unsupported("drain"),
    awaitIdle: unsupported("awaitIdle"),
    awaitQueue: unsupported("awaitQueue"),
    statistics: unsupported("statistics")
  }
}
