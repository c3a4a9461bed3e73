/**
 * Declares the kind `Concurrency`.
 */
import type { Kind } from "./kind.ts"
import * as Words from "./words.ts"

/** The kind `Concurrency`: at most `limit` permits held at once. */
export const concurrency: Kind<{
  readonly limit: number
  readonly onReentry?: "die" | "bypass"
  readonly unit?: string
}> = {
  words: (data) => `at most ${data.limit}${Words.unit(data)} at once`,
  parts: ({ limit, onReentry = "die" }) => ({ pool: { limit, onReentry } })
}
