/**
 * Simulates the effect of a policy on calls in virtual time: hours in milliseconds.
 *
 * {@link run} takes a policy and arrivals ({@link steady}, {@link poisson}, {@link bursts}, {@link ramp}, {@link list}, and
 * {@link merge} of them), and returns the outcome of each call. {@link summary} computes numbers, {@link svg} draws a
 * picture, {@link text} draws a picture for terminals.
 *
 * @since 0.1.0
 * @module
 */
export * from "./arrivals.ts"
export { type Panel } from "./panels.ts"
export {
  type Call,
  type Change,
  type Changed,
  ofCaller,
  type Outcome,
  type Refusal,
  type Result,
  run,
  type RunOptions
} from "./run.ts"
export { type Summary, summary } from "./summary.ts"
export { svg, type SvgOptions } from "./svg.ts"
export { text, type TextOptions } from "./text.ts"
export { describe } from "./words.ts"
