/**
 * Collects what a program logs and the spans it makes.
 */
import { Effect, Logger, References, Tracer } from "effect"

export interface Line {
  /** The message, or all of them if there are several. */
  readonly message: unknown
  readonly level: string
  readonly annotations: Readonly<Record<string, unknown>>
}

export const collect = () => {
  const lines: Array<Line> = []
  const spans: Array<Tracer.NativeSpan> = []
  const logger = Logger.make(({ fiber, logLevel, message }) => {
    const messages = message as ReadonlyArray<unknown>
    lines.push({
      message: messages.length === 1 ? messages[0] : messages,
      level: logLevel,
      annotations: fiber.getRef(References.CurrentLogAnnotations)
    })
  })
  const tracer = Tracer.make({
    span(options) {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return {
    lines,
    spans,
    in: <A, E, R>(self: Effect.Effect<A, E, R>) =>
      self.pipe(Effect.provide(Logger.layer([logger])), Effect.provideService(Tracer.Tracer, tracer))
  }
}
