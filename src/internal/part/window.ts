/**
 * Declares the kind `Window`, whose meters are `sliding.ts` and `fixed.ts`.
 */
import type { FixedRule } from "./fixed.ts"
import { type Kind, nanos } from "./kind.ts"
import type { SlidingRule } from "./sliding.ts"
import * as Words from "./words.ts"

/** The kind `Window`: at most `limit` permits in any span of `per`, or in each window of the wall clock. */
export const windowPolicy: Kind<{
  readonly limit: number
  readonly per: number
  readonly kind: "sliding" | "fixed"
  readonly unit?: string
}, FixedRule | SlidingRule> = {
  words: (data) =>
    data.kind === "sliding"
      ? `at most ${data.limit}${Words.unit(data)} in any ${Words.duration(data.per, "")}`
      : `at most ${data.limit}${Words.unit(data)} in each ${Words.duration(data.per, "")} of the clock`,
  parts: ({ kind, limit, per }) => ({
    meter: { rule: { kind, limit, per: nanos(per) }, pace: { permits: limit, per: nanos(per) } }
  })
}
