/**
 * The caller of a call: whose it is, for orders of the queue and for bounds for each caller.
 */
import * as Context from "effect/Context"
import * as Fiber from "effect/Fiber"
import * as Options from "./options.ts"

/** @see Throttle.Caller */
export interface Caller {
  /** Whose call it is, such as a tenant. Calls without a caller are those of the caller "". */
  readonly key: string
  /** The caller's share in the order "fair", relative to others. */
  readonly weight: number
  /** How urgent the call is: higher is more urgent. */
  readonly priority: number
}

/** The caller of calls that name none. */
export const unnamed: Caller = { key: "", weight: 1, priority: 0 }

export const Caller: Context.Reference<Caller> = Context.Reference("effect-throttle/Throttle/Caller", {
  defaultValue: () => unnamed
})

/** The caller of a call that the current fiber makes. */
export const current = (): Caller => Fiber.getCurrent()?.getRef(Caller) ?? unnamed

/** The fields of a caller in events, logs and spans; none for a call without a caller. */
export const fields = (caller: Caller): { readonly caller?: string; readonly priority?: number } =>
  caller === unnamed
    ? {}
    : { caller: caller.key, ...(caller.priority === 0 ? undefined : { priority: caller.priority }) }

/** The number of waiting calls of each caller. */
export type Counts = Map<string, number>

export const count = (counts: Counts, { key }: Caller, change: 1 | -1): void => {
  const calls = (counts.get(key) ?? 0) + change
  if (calls === 0) counts.delete(key)
  else counts.set(key, calls)
}

const rules = {
  key: Options.rule<string>("a string", (received) => typeof received === "string"),
  weight: Options.rule<number>(
    "a number from 0.001 to 1000",
    (received) => typeof received === "number" && received >= 0.001 && received <= 1_000
  ),
  priority: Options.rule<number>("a finite number", Number.isFinite)
}

/** Checks the fields of a caller. Throws a `RangeError` for an invalid or unknown one. */
export const read = (where: string, options: unknown): Partial<Caller> => Options.readAll(where, rules, options)
