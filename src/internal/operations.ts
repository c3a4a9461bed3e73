/**
 * The list of a throttle's operations, written once. The methods of a throttle, the functions of the module, the
 * statics of a Service class and the operations of a map's keys are derived from it.
 */
import * as Effect from "effect/Effect"
import * as Formatter from "effect/Formatter"
import type { Engine } from "./engine.ts"
import * as Options from "./options.ts"
import type { Operations, Throttle } from "./service.ts"

/**
 * Accepts both `f(cost)(self)` and `f(self, cost)`. The first argument tells them apart, not their number, since some
 * callers pass additional arguments.
 */
const bothForms =
  (f: (first: any, cost: any) => Effect.Effect<any, any, any>): any => (first: unknown, cost: unknown) =>
    Effect.isEffect(first) || typeof first === "function" ? f(first, cost) : (self: unknown) => f(self, first)

/** Each operation as a function of an engine. `Effect.suspend` makes it start in a step of the fiber that runs it. */
const operations: { readonly [Name in keyof Throttle]: (engine: Engine) => Throttle[Name] } = {
  withPermit: (engine) => (self) => Effect.suspend(() => engine.run(self, undefined)),
  withPermits: (engine) => bothForms((self, cost) => Effect.suspend(() => engine.run(self, cost))),
  withPermitsIfAvailable: (engine) =>
    bothForms((self, cost) => Effect.suspend(() => engine.runIfAvailable(self, cost))),
  wait: (engine) => (cost) => Effect.suspend(() => engine.wait(cost)),
  allow: (engine) => (cost) => Effect.suspend(() => engine.allow(cost)),
  takeScoped: (engine) => (cost) => Effect.suspend(() => engine.take(cost)),
  usePermits: (engine) => bothForms((use, cost) => Effect.suspend(() => engine.use(use, cost))),
  estimateWait: (engine) => (cost) => Effect.suspend(() => engine.estimateWait(cost)),
  remaining: (engine) => Effect.suspend(() => engine.remaining()),
  // Only a key of a full map can fail; its throttle has an engine that does not.
  pause: (engine) => (duration) => Effect.suspend(() => engine.pause(nanosOf(engine, duration))) as Effect.Effect<void>,
  resume: (engine) => Effect.suspend(() => engine.resume()),
  update: (engine) => (policy) => Effect.suspend(() => engine.update(policy)),
  reset: (engine) => Effect.suspend(() => engine.reset()),
  statistics: (engine) => Effect.suspend(() => engine.statistics()),
  drain: (engine) => (deadline) => Effect.suspend(() => engine.drain(deadlineOf(engine, deadline))),
  awaitIdle: (engine) => Effect.suspend(() => engine.awaitIdle()),
  awaitQueue: (engine) => (calls) => Effect.suspend(() => engine.awaitQueue(callsOf(engine, calls)))
}

type Name = keyof Throttle

/**
 * The shape of each operation. "effect": an Effect; "function": a function that returns one; "pipe": a function of the
 * effect to run; "both": a function of that effect and a cost, data first or data last.
 */
const forms: { readonly [N in Name]: "effect" | "function" | "pipe" | "both" } = {
  withPermit: "pipe",
  withPermits: "both",
  withPermitsIfAvailable: "both",
  wait: "function",
  allow: "function",
  takeScoped: "function",
  usePermits: "both",
  estimateWait: "function",
  remaining: "effect",
  pause: "function",
  resume: "effect",
  update: "function",
  reset: "effect",
  statistics: "effect",
  drain: "function",
  awaitIdle: "effect",
  awaitQueue: "function"
}

const each = <A>(f: (name: Name) => unknown): A =>
  Object.fromEntries((Object.keys(forms) as ReadonlyArray<Name>).map((name) => [name, f(name)])) as A

const read = <A>({ name }: Pick<Engine, "name">, option: string, rule: Options.Rule<A>, received: unknown): A =>
  Options.read(`throttle ${Formatter.format(name)}`, option, rule, received)

const nanosOf = (engine: Engine, duration: unknown): number =>
  read(engine, "duration", Options.anyDuration, duration) * 1e6

/** The deadline of a drain in nanoseconds from now; Infinity for none. */
export const deadlineOf = (engine: Pick<Engine, "name">, deadline: unknown): number =>
  deadline === undefined ? Infinity : read(engine, "deadline", Options.anyDuration, deadline) * 1e6

const callsOf = (engine: Engine, calls: unknown): number => read(engine, "n", Options.integer(1), calls)

// ---------------------------------------------------------------------------------------------------------------------
// A throttle
// ---------------------------------------------------------------------------------------------------------------------

/**
 * The property under which a throttle keeps its engine. It is not enumerable, so a copy with other members has none.
 */
const originKey = Symbol("effect-throttle/Made")

interface Origin {
  readonly engine: Engine
  readonly withPermit: Throttle["withPermit"]
}

/** Makes a throttle on an engine. */
export const make = (engine: Engine): Throttle => {
  const throttle: Throttle = each((name) => operations[name](engine))
  const origin: Origin = { engine, withPermit: throttle.withPermit }
  return Object.defineProperty(throttle, originKey, { value: origin })
}

/**
 * The engine of a throttle of this package; undefined for any other. An object that inherits from a throttle but has
 * its own `withPermit`, such as a mock, is not one.
 */
export const engineOf = (throttle: Throttle): Engine | undefined => {
  const origin = (throttle as { readonly [originKey]?: Origin })[originKey]
  return origin !== undefined && origin.withPermit === throttle.withPermit ? origin.engine : undefined
}

/** Derives the operations of a throttle that `use` looks up when they run. */
export const derive = <E, R>(
  use: <A, E1, R1>(f: (throttle: Throttle) => Effect.Effect<A, E1, R1>) => Effect.Effect<A, E1, R1 | R>
): Operations<E, R> =>
  each((name) => {
    const call = (...args: ReadonlyArray<unknown>) => use((throttle) => (throttle[name] as any)(...args))
    switch (forms[name]) {
      case "effect":
        return use((throttle) => throttle[name] as Effect.Effect<unknown>)
      case "both":
        return bothForms(call)
      default:
        return call
    }
  })

// ---------------------------------------------------------------------------------------------------------------------
// The throttles of a map
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Derives the operations of a map for each key, data last: `f(key, cost)(self)`. `engineFor` returns the engine of a
 * key.
 */
export const byKey = <K, A>(engineFor: (key: K) => Engine): A =>
  each((name) => {
    const operation: (engine: Engine) => any = operations[name]
    switch (forms[name]) {
      case "effect":
      case "pipe":
        return (key: K) => operation(engineFor(key))
      default:
        return (key: K, argument: unknown) => operation(engineFor(key))(argument)
    }
  })

/** Derives the operations for each key of a map that `use` looks up when they run. */
export const deriveByKey = <M, A>(
  use: (f: (map: M) => Effect.Effect<any, any, any>) => Effect.Effect<any, any, any>
): A =>
  each((name) => {
    const call = (map: any, ...args: ReadonlyArray<unknown>) => map[name](...args)
    switch (forms[name]) {
      case "pipe":
      case "both":
        return (...args: ReadonlyArray<unknown>) => (self: unknown) => use((map) => call(map, ...args)(self))
      default:
        return (...args: ReadonlyArray<unknown>) => use((map) => call(map, ...args))
    }
  })
