/**
 * The list of all kinds of policies and of all meters. A new kind is a file in this folder, its lines here, and its
 * schema in `data/schema.ts`.
 */
import { calendar, type CalendarRule } from "./calendar.ts"
import { concurrency } from "./concurrency.ts"
import { fixed, type FixedRule } from "./fixed.ts"
import type { Kind } from "./kind.ts"
import type { Meter } from "./meter.ts"
import { rate, ratePolicy, type RateRule, tokenBucketPolicy } from "./rate.ts"
import { sliding, type SlidingRule } from "./sliding.ts"
import { spacing, spacingPolicy, type SpacingRule } from "./spacing.ts"
import { windowPolicy } from "./window.ts"

/** The kinds by the tag of a policy's data. */
export const kinds = {
  Rate: ratePolicy,
  TokenBucket: tokenBucketPolicy,
  Window: windowPolicy,
  Spacing: spacingPolicy,
  Concurrency: concurrency,
  None: { words: () => "no limit", parts: () => ({}) } satisfies Kind<unknown>
} as const

/** A meter as plain data. Times are nanoseconds. */
export type Rule = RateRule | SlidingRule | FixedRule | CalendarRule | SpacingRule

/** Makes the meter of a rule. */
export const meterOf = (rule: Rule): Meter<any, any> => {
  switch (rule.kind) {
    case "rate":
      return rate(rule)
    case "sliding":
      return sliding(rule)
    case "fixed":
      return fixed(rule)
    case "calendar":
      return calendar(rule)
    case "spacing":
      return spacing(rule)
  }
}
