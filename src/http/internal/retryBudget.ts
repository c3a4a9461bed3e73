/**
 * How many requests may be repeated: a token bucket to which each request adds a part of a token and from which each retry
 * takes one, as Finagle's `RetryBudget` does it. What was added, and what was taken, counts for 10 seconds. Imports nothing.
 */

export interface Options {
  /** The part of a token that each request adds. */
  readonly ratio: number
  /** Retries a second that are allowed whatever the load. */
  readonly min: number
}

export interface Budget {
  /** The balance of each of the last seconds. */
  readonly seconds: Array<number>
  /** The second that `seconds[second % span]` is for. */
  second: number
}

/** Seconds for which a balance counts. */
const span = 10

export const make = (): Budget => ({ seconds: Array.from({ length: span }, () => 0), second: 0 })

/** The index of the present second; those that are over count no more. `now` is monotonic, in nanoseconds. */
const advance = (budget: Budget, now: number): number => {
  const second = Math.floor(now / 1e9)
  const passed = Math.min(span, second - budget.second)
  for (let i = 0; i < passed; i++) budget.seconds[(second - i) % span] = 0
  budget.second = Math.max(budget.second, second)
  return budget.second % span
}

/** A request is sent for the first time. */
export const deposit = (budget: Budget, { ratio }: Options, now: number): void => {
  budget.seconds[advance(budget, now)]! += ratio
}

/** Less than this beside a whole number is the noise of a fraction. */
const grain = 1e-9

/** Whether a request may be sent again; counts it. */
export const withdraw = (budget: Budget, { min }: Options, now: number): boolean => {
  const index = advance(budget, now)
  const balance = budget.seconds.reduce((sum, part) => sum + part, min * span)
  if (balance < 1 - grain) return false
  budget.seconds[index]! -= 1
  return true
}
