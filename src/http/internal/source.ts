/**
 * What a client needs of a throttle, whatever kind it is: a policy, a map, one throttle for all, or a service.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Formatter from "effect/Formatter"
import type * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import * as Maps from "../../internal/keyed/map.ts"
import { engineOf } from "../../internal/operations.ts"
import * as Plan from "../../internal/plan.ts"
import * as Throttle from "../../Throttle.ts"
import type { ThrottleError } from "../../ThrottleError.ts"
import type * as ThrottleMap from "../../ThrottleMap.ts"

/** What throttles the requests of a client. */
export type Source =
  | Throttle.Policy<any>
  | ThrottleMap.Options<string>
  | Instance
  | Context.Key<any, Instance>

export type Instance = Throttle.Throttle | ThrottleMap.ThrottleMap<string>

export interface Gate {
  /** Waits for a request's turn, and holds its permits until the scope closes. */
  readonly take: (key: string, cost: Throttle.Cost | undefined) => Effect.Effect<Turn, ThrottleError, Scope.Scope>
  /** How long this cost would have to wait. */
  readonly estimateWait: (
    key: string,
    cost: Throttle.Cost | undefined
  ) => Effect.Effect<Option.Option<Duration.Duration>>
  /** The plan of a key's policy, to be asked anew each time; undefined for a throttle of another make. */
  readonly planOf: (key: string) => Plan.Plan | undefined
}

/** A request that was let in. */
export interface Turn {
  /** As if it had not been let in. */
  readonly cancel: Effect.Effect<void>
  /** Lets nobody start for so many milliseconds by the throttle that let this one in. */
  readonly pause: (millis: number) => Effect.Effect<unknown, ThrottleError>
}

/** What logs and metrics call the throttle of a key. */
export const nameOf = (gate: Gate, key: string): string => gate.planOf(key)?.name ?? defaultName

const defaultName = "http"

type AnyFiber = Fiber.Fiber<unknown, unknown>

/** The gate of the fiber that asks. Throws a RangeError for what is none of these. */
export const gateOf = (caller: string, source: Source): (fiber: AnyFiber) => Gate => {
  if (Throttle.isPolicy(source)) return perClock(ofPolicy(source))
  // A class is a function.
  if (Context.isKey(source)) {
    return ({ context }) => ofInstance(Context.getUnsafe(context, source as Context.Key<never, Instance>))
  }
  if (isInstance(source)) {
    const gate = ofInstance(source)
    return () => gate
  }
  if (Predicate.hasProperty(source, "lookup")) {
    const made = Maps.makeUnsafe({ name: defaultName, ...source })
    return perClock((context, clock) => ofMap(made(context, clock)))
  }
  throw new RangeError(
    `${caller}: "source" must be a policy, the options of a ThrottleMap, a throttle, a ThrottleMap, or the key of one, ` +
      `received ${Formatter.format(source)}`
  )
}

const isInstance = (source: unknown): source is Instance =>
  Predicate.hasProperty(source, "takeScoped") && Predicate.hasProperty(source, "pause")

/** As inline use of a policy has it: programs on the live clock share one, each test starts afresh. */
export const perClock = <A>(
  make: (context: Context.Context<never>, clock: Clock.Clock) => A
): (fiber: AnyFiber) => A => {
  const made = new WeakMap<Clock.Clock, A>()
  return (fiber) => {
    const clock = fiber.getRef(Clock.Clock)
    let found = made.get(clock)
    if (found === undefined) made.set(clock, found = make(fiber.context, clock))
    return found
  }
}

const turn = ({ cancel }: Throttle.Permit, pause: Turn["pause"]): Turn => ({ cancel, pause })

const ofMap = (map: ThrottleMap.ThrottleMap<string>): Gate => ({
  take: (key, cost) =>
    Effect.map(map.takeScoped(key, cost), (permit) => turn(permit, (millis) => map.pause(key, millis))),
  estimateWait: map.estimateWait,
  planOf: (key) => Maps.peek(map, key)?.view.plan
})

const ofInstance = (instance: Instance): Gate =>
  "statisticsOf" in instance
    ? ofMap(instance)
    : {
      take: (_key, cost) => Effect.map(instance.takeScoped(cost), (permit) => turn(permit, instance.pause)),
      estimateWait: (_key, cost) => instance.estimateWait(cost),
      planOf: () => engineOf(instance)?.plan()
    }

/** So many keys are remembered of a policy; an idle one takes 200 bytes, one in use 4 kB. */
const maxKeys = 10_000

/**
 * A policy for each key. It must not fail where the policy cannot, so keys for which there is no room, because all others
 * are in use, have one throttle together.
 */
const ofPolicy = (policy: Throttle.Policy<any>) => {
  const options = { lookup: () => policy, name: policy.data.name ?? defaultName }
  const eachKey = Maps.makeUnsafe<string>({ ...options, maxKeys, onFull: "evict" })
  const allOthers = Maps.makeUnsafe<string>(options)
  const plan = { ...Plan.make(policy.data), name: options.name }
  return (context: Context.Context<never>, clock: Clock.Clock): Gate => {
    const each = eachKey(context, clock)
    const ofEach = ofMap(each)
    const rest = allOthers(context, clock)
    return {
      estimateWait: each.estimateWait,
      planOf: () => plan,
      take: (key, cost) =>
        Effect.catchIf(ofEach.take(key, cost), hasNoRoom, () =>
          Effect.map(rest.takeScoped("", cost), (permit) =>
            // Its key may have found room since, and others of its key may still be in line here.
            turn(permit, (millis) => Effect.andThen(rest.pause("", millis), Effect.exit(each.pause(key, millis))))))
    }
  }
}

const hasNoRoom = ({ reason }: ThrottleError): boolean => reason._tag === "KeysExhausted"
