/**
 * What a client needs of a throttle, whatever kind it is: a policy, a map, one throttle for all, or a service.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Formatter from "effect/Formatter"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import * as Throttle from "../../Throttle.ts"
import type { ThrottleError } from "../../ThrottleError.ts"
import * as ThrottleMap from "../../ThrottleMap.ts"

/** What throttles the requests of a client. */
export type Source =
  | Throttle.Policy<any>
  | ThrottleMap.Options<string>
  | Instance
  | Context.Key<any, Instance>

export type Instance = Throttle.Throttle | ThrottleMap.ThrottleMap<string>

export interface Gate {
  /** Holds a request's permits until the scope closes. */
  readonly take: (key: string, cost: Throttle.Cost | undefined) => Effect.Effect<unknown, ThrottleError, Scope.Scope>
  /** Lets nobody start for so many milliseconds. */
  readonly pause: (key: string, millis: number) => Effect.Effect<void, ThrottleError>
}

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
    const made = ThrottleMap.makeUnsafe({ name: defaultName, ...source })
    return perClock((context, clock) => ofMap(made(context, clock)))
  }
  throw new RangeError(
    `${caller}: a policy, the options of a ThrottleMap, a throttle, a ThrottleMap or the key of one is needed here, ` +
      `got ${Formatter.format(source)}`
  )
}

const defaultName = "http"

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

const ofMap = (map: ThrottleMap.ThrottleMap<string>): Gate => ({ take: map.takeScoped, pause: map.pause })

const ofInstance = (instance: Instance): Gate =>
  "statisticsOf" in instance
    ? ofMap(instance)
    : { take: (_key, cost) => instance.takeScoped(cost), pause: (_key, millis) => instance.pause(millis) }

/** So many keys are remembered of a policy; an idle one takes 200 bytes, one in use 4 kB. */
const maxKeys = 10_000

/**
 * A policy for each key. It must not fail where the policy cannot, so keys for which there is no room, because all others
 * are in use, have one throttle together.
 */
const ofPolicy = (policy: Throttle.Policy<any>) => {
  const options = { lookup: () => policy, name: policy.data.name ?? defaultName }
  const eachKey = ThrottleMap.makeUnsafe<string>({ ...options, maxKeys, onFull: "evict" })
  const allOthers = ThrottleMap.makeUnsafe<string>(options)
  return (context: Context.Context<never>, clock: Clock.Clock): Gate => {
    const map = eachKey(context, clock)
    const rest = allOthers(context, clock)
    return {
      take: (key, cost) => Effect.catchIf(map.takeScoped(key, cost), hasNoRoom, () => rest.takeScoped("", cost)),
      pause: (key, millis) => Effect.catchIf(map.pause(key, millis), hasNoRoom, () => rest.pause("", millis))
    }
  }
}

const hasNoRoom = ({ reason }: ThrottleError): boolean => reason._tag === "KeysExhausted"
