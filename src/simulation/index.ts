/**
 * What a policy does to calls, in virtual time: hours of it in milliseconds.
 *
 * {@link run} takes a policy and the calls that arrive ({@link steady}, {@link poisson}, {@link bursts}, {@link ramp},
 * {@link list}, and {@link merge} of them), and says what became of each. {@link summary} gives the numbers, {@link svg}
 * a picture, {@link text} a picture for terminals.
 *
 * @since 0.1.0
 * @module
 */
export * from "./arrivals.ts"
export {
  type Call,
  type Change,
  type Changed,
  type Outcome,
  type Refusal,
  type Result,
  run,
  type RunOptions
} from "./run.ts"
export { type Summary, summary } from "./summary.ts"
export { type Panel, svg, type SvgOptions } from "./svg.ts"
export { text, type TextOptions } from "./text.ts"
export { describe } from "./words.ts"
