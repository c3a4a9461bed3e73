/**
 * Makes policy values: a function that throttles an effect, with the members of the Layer of a throttle. Finds the
 * limiter of inline use.
 */
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Formatter from "effect/Formatter"
import * as Inspectable from "effect/Inspectable"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as Scope from "effect/Scope"
import type { ThrottleError } from "../ThrottleError.ts"
import * as Admission from "./admission.ts"
import type { PolicyData } from "./data/schema.ts"
import * as Local from "./local.ts"
import * as Metrics from "./metrics.ts"
import * as Plan from "./plan.ts"
import { isPolicy, type Policy, Throttle, TypeId } from "./service.ts"
import * as LocalThrottle from "./throttle.ts"
import * as Time from "./time.ts"

/** The throttle in which inline use of a policy runs. */
export type Found =
  | LocalThrottle.LocalThrottle
  /** On a store: `inline` runs an effect, and adds no error that the policy's type lacks. */
  | { readonly throttle: Throttle; readonly limiter: undefined; readonly inline: Inline }

export type Inline = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | ThrottleError, R>

interface Implementation<E> extends Policy<E> {
  /** Returns its Layer, with this name if the policy has none. */
  readonly named: (name: string) => Layer.Layer<Throttle>
  /** Finds the throttle of inline use in a fiber. */
  readonly find: (fiber: Fiber.Fiber<unknown, unknown>) => Found
  /** The key under which its Layer provides that throttle. */
  readonly key: Context.Key<never, Found>
  /** Whether its type adds an error. */
  readonly mayReject: boolean
  /** Makes the Context of its Layer: the service, and the throttle of inline use. */
  readonly provided: (found: Found) => Context.Context<Throttle>
}

/**
 * Makes a policy of its data. `mayReject`: whether its type adds an error. That of a decoded policy does, with bounds
 * or without.
 */
export const make = <E>(data: PolicyData, mayReject = Plan.isBounded(Plan.make(data))): Policy<E> => {
  const plan = Plan.make(data)
  const { description } = plan
  // Keys of a Context are compared by identity, so with an object no other policy has this key. With a symbol neither, but
  // `HttpRouter` and `HttpApiBuilder` call string methods of every key.
  const key = Context.Service<never, Found>(Object(`effect-throttle/Policy/${plan.name}`) as string)
  const inline = new WeakMap<Clock.Clock, Found>()
  // Looking for a key that was never provided would take 60 ns, a sixth of a call.
  let everProvided = false

  const provided = (found: Found) => {
    everProvided = true
    return Context.add(Context.make(Throttle, found.throttle), key, found)
  }
  const build = (name: string) => Effect.map(LocalThrottle.makeScoped({ ...plan, name }, mayReject), provided)
  const layer: Layer.Layer<Throttle> = Layer.effectContext(build(plan.name))
  const named = (name: string): Layer.Layer<Throttle> => {
    if (data.name !== undefined) return layer
    // Without a limit there is nothing to share: each service has its own throttle, with its own name and numbers.
    if (plan.units === undefined) return Layer.effectContext(build(name))
    // Memoised as the policy's Layer, so that one policy value is one limiter for each build, whatever its name.
    return Layer.fromBuild((memoMap, scope) =>
      memoMap.getOrElseMemoize(layer, scope, (_, scope) => Effect.provideService(build(name), Scope.Scope, scope))
    )
  }

  const find = (fiber: Fiber.Fiber<unknown, unknown>): Found => {
    if (everProvided) {
      const provided = Context.getOrUndefined(fiber.context as Context.Context<any>, key)
      if (provided !== undefined) return provided
    }
    const clock = fiber.getRef(Clock.Clock)
    let found = inline.get(clock)
    if (found === undefined) {
      const series = Metrics.acquire(fiber.context, plan.name)
      found = LocalThrottle.make(Local.makeUnsafe(plan, series, Time.make(clock), mayReject), mayReject)
      inline.set(clock, found)
    }
    return found
  }

  // Code that tests `typeof policy === "function"` may call it without an effect to get a Layer: it gets the plain one.
  const policy = (self: unknown): unknown => {
    if (!Effect.isEffect(self)) return layer
    if (plan.pools.length === 0) {
      return Effect.withFiber((fiber) => {
        const found = find(fiber)
        const { limiter } = found
        return limiter === undefined ? found.inline(self) : Admission.run(limiter, limiter.one, self)
      })
    }
    // A call that holds permits needs the uninterruptible region anyway, so `run`, which is one step more, is skipped.
    return Effect.uninterruptibleMask((restore) => {
      const found = find(Fiber.getCurrent()!)
      const { limiter } = found
      return limiter === undefined
        ? restore(found.inline(self))
        : Admission.runMasked(limiter, limiter.one, self, restore)
    })
  }

  // The Layer's members are copied, inherited ones too. Changing the function's prototype instead would break `flow`.
  const members: Record<string, unknown> = {}
  for (const member in layer) members[member] = layer[member as keyof typeof layer]
  return Object.assign(policy, members, {
    [TypeId]: { _E: (e: never) => e },
    data,
    named,
    find,
    key,
    mayReject,
    provided,
    toString: () => `Throttle(${description})`,
    toJSON: () => ({ _id: "effect-throttle/Policy", description, data }),
    [Inspectable.NodeInspectSymbol]: () => `Throttle(${description})`
  }) as unknown as Policy<E>
}

const implementation = <E>(policy: Policy<E>): Implementation<E> => {
  if (isPolicy(policy)) return policy as Implementation<E>
  throw new RangeError(`Throttle: "policy" must be a policy, received ${Formatter.format(policy)}`)
}

/** Returns the throttle in which inline use of a policy runs in the current fiber. */
export const throttleOf = (policy: Policy<any>): Effect.Effect<Throttle> => {
  const { find } = implementation(policy)
  return Effect.withFiber((fiber) => Effect.succeed(find(fiber).throttle))
}

export const mayReject = (policy: Policy<any>): boolean => implementation(policy).mayReject

export const dataOf = (policy: Policy<any>): PolicyData => implementation(policy).data

/** Makes the Context of a policy's Layer, with a throttle that was made elsewhere. */
export const provide = (policy: Policy<any>, throttle: Throttle, inline: Inline): Context.Context<Throttle> =>
  implementation(policy).provided({ throttle, limiter: undefined, inline })

/** Makes that Context under the key of a Service class. */
export const underKey = <Self>(
  key: Context.Key<Self, Throttle>,
  policy: Policy<any>,
  context: Context.Context<Throttle>
): Context.Context<Self> => {
  const inline = implementation(policy).key
  return Context.make(key, Context.get(context, Throttle)).pipe(
    Context.add(inline, Context.getUnsafe(context as Context.Context<any>, inline))
  )
}

/** Makes the Layer of a policy under the key of a Service class. */
export const layerUnder = <Self>(
  key: Context.Key<Self, Throttle>,
  name: string,
  policy: Policy<any>
): Layer.Layer<Self> => {
  const layer = implementation(policy).named(name)
  return Layer.fromBuild((memoMap, scope) =>
    Effect.map(Layer.buildWithMemoMap(layer, memoMap, scope), (context) => underKey(key, policy, context))
  )
}

/** Restricts a `Config` of a policy to policies without bounds, for calls whose type has no error. */
export const unbounded = (name: string, config: Config.Config<Policy<any>>): Config.Config<Policy<never>> =>
  Config.mapEffect(config, (policy) => {
    const { data } = policy
    return Plan.isBounded(Plan.make(data))
      ? Effect.fail(
        new Config.ConfigError(
          new Schema.SchemaError(
            new SchemaIssue.InvalidValue(
              { expected: `a policy without bounds, since calls of ${name} cannot fail` },
              data
            )
          )
        )
      )
      : Effect.succeed(make<never>(data, false))
  })
