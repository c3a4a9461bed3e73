/** Layers that provide a recorder in place of a throttle. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Types from "effect/Types"
import * as Throttle from "../Throttle.ts"
import type { ThrottleError } from "../ThrottleError.ts"
import { fromSettings, Recorder } from "./recorder.ts"
import * as Script from "./script.ts"

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
 * To read the record of one class's throttle. Each class has its own recorder, so a test can provide several.
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

/**
 * Makes the Layer of a recorder. It provides the generic `Throttle` service and {@link Recorder}.
 *
 * **When to use**
 *
 * Where the code under test requires the generic service.
 *
 * **Details**
 *
 * Options and answers are those of {@link make}. Each call makes another Layer, and each build of a Layer another recorder.
 * A policy used inline has its own limiter and is not replaced: code whose throttle a test replaces requires a service.
 *
 * **Errors**
 *
 * The Layer never fails. Throws a `RangeError` at once for invalid options.
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
export const layer = (options: Script.Options = {}): Layer.Layer<Throttle.Throttle | Recorder> =>
  provided(Throttle.Throttle, Recorder, Script.read("Testing.layer", options, "recorder"))

/**
 * Makes the Layer of a recorder. It provides a `Throttle.Service` class and {@link recorderOf} that class.
 *
 * **When to use**
 *
 * In a test, instead of the class's own `layer`.
 *
 * **Details**
 *
 * Options and answers are those of {@link make}. `withPermit` of a class whose policy has no bounds cannot fail, so the
 * compiler accepts no `reject` for it. A policy used inline has its own limiter, even if it is the class's policy.
 *
 * **Errors**
 *
 * The Layer never fails. Throws a `RangeError` at once for invalid options.
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
 * @see {@link recorderOf} to read its record
 * @category layers
 * @since 0.1.0
 */
export const layerFor: {
  /**
   * Makes the Layer of a recorder in place of a `Throttle.Service` class whose calls cannot fail: it answers calls
   * by the options, which must not reject, and records them; {@link recorderOf} the class reads the record. Throws a
   * `RangeError` for invalid options.
   */
  <Self, Id extends string, U extends string>(
    service: Throttle.ServiceClass<Self, Id, never, U>,
    options?: Script.Options<Script.Admission>
  ): Layer.Layer<Self | RecorderOf<Self>>
  /**
   * Makes the Layer of a recorder in place of a `Throttle.Service` class whose calls may fail: it answers calls by
   * the options and records them; {@link recorderOf} the class reads the record. Throws a `RangeError` for invalid options.
   */
  <Self, Id extends string, U extends string>(
    service: Throttle.ServiceClass<Self, Id, ThrottleError, U>,
    options?: Script.Options
  ): Layer.Layer<Self | RecorderOf<Self>>
} = <Self>(
  service: Context.Key<Self, Throttle.Throttle> & { readonly policy: Throttle.Policy<any> },
  options: Script.Options = {}
): Layer.Layer<Self | RecorderOf<Self>> =>
  provided(
    service,
    recorderOf(service),
    Script.read("Testing.layerFor", options, service.policy.data.name ?? service.key)
  )

const provided = <Self, R>(
  service: Context.Key<Self, Throttle.Throttle>,
  key: Context.Key<R, Recorder>,
  settings: Script.Settings
): Layer.Layer<Self | R> =>
  Layer.effectContext(
    Effect.map(
      fromSettings(settings),
      (recorder) => Context.add(Context.make(service, recorder.throttle), key, recorder)
    )
  )
