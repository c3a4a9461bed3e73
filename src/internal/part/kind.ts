/**
 * The declaration of a kind of policy. Each file of this folder that exports a `Kind` contains everything about that
 * kind, except its schema; `kinds.ts` lists them.
 */
export interface Kind<in D, out Rule = never> {
  /** Describes the policy in words, without its bounds. */
  readonly words: (data: D) => string
  /** Returns the limits that it sets. */
  readonly parts: (data: D) => Parts<Rule>
}

/** A policy has a time-based part, a permit-based part, or both. */
export interface Parts<out Rule> {
  readonly meter?: MeterOptions<Rule>
  readonly pool?: PoolOptions
}

export interface MeterOptions<out Rule> {
  /** The meter as plain data. */
  readonly rule: Rule
  /** The long-run pace: so many permits in so many nanoseconds. */
  readonly pace: { readonly permits: number; readonly per: number }
  /** Whether a call counts as 1, whatever its cost. */
  readonly perCall?: boolean
  /** Whether it is charged when the permit of the policy's pool is released, not when a call starts. */
  readonly chargedOnRelease?: boolean
}

export interface PoolOptions {
  readonly limit: number
  readonly perCall?: boolean
  /** The result of a call that would wait for permits that its own fiber holds. */
  readonly onReentry: "die" | "bypass"
}

/** Converts the milliseconds of policies to the nanoseconds of meters. */
export const nanos = (millis: number): number => millis * 1e6
