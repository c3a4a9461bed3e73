/**
 * Describes policies in words, for logs and errors.
 */
import { kinds } from "../part/kinds.ts"
import * as Words from "../part/words.ts"
import type { PolicyData } from "./schema.ts"

/** Describes a policy without its bounds. */
export const wordsOf = (data: PolicyData): string => {
  switch (data._tag) {
    case "Shadow":
      return `in shadow: ${describe(data.policy)}`
    case "All":
      return data.policies.length === 0 ? "no limit" : data.policies.map(describe).join("; ")
    default:
      return kinds[data._tag].words(data as never)
  }
}

/**
 * Returns a policy's data in words, its bounds included.
 *
 * **Example**
 *
 * ```ts
 * import { Throttle } from "effect-throttle"
 *
 * const policy = Throttle.all([Throttle.rate({ limit: 30, burst: 10 }), Throttle.concurrency({ limit: 5 })])
 *
 * console.log(Throttle.describe(policy)) // 30 per second, burst 10; at most 5 at once
 * ```
 *
 * @category words
 * @since 0.1.0
 */
export const describe = (data: PolicyData): string => {
  if (data._tag === "Shadow") return wordsOf(data)
  const bounds = [
    data.order === "priority"
      ? `urgent calls first, ${Words.duration(data.ageing!, "1 ")} for a step of priority`
      : data.order === "fair"
      ? "fair among callers"
      : "",
    data.maxQueue === undefined ? "" : data.maxQueue === 0 ? "never waiting" : `at most ${data.maxQueue} waiting`,
    data.maxQueuePerCaller === undefined ? "" : `at most ${data.maxQueuePerCaller} waiting per caller`,
    "maxWait" in data && data.maxWait !== undefined ? `waiting at most ${Words.duration(data.maxWait, "1 ")}` : "",
    data.timeout === undefined ? "" : `timing out after ${Words.duration(data.timeout, "1 ")}`
  ].filter((bound) => bound !== "")
  return bounds.length === 0 ? wordsOf(data) : `${wordsOf(data)} (${bounds.join(", ")})`
}

/** The name of a policy in logs, metrics and errors: its `name`, or else its kind. */
export const nameOf = (data: PolicyData): string =>
  data.name ?? (data._tag === "Shadow" ? nameOf(data.policy) : undefined) ??
    `${data._tag[0]!.toLowerCase()}${data._tag.slice(1)}`
