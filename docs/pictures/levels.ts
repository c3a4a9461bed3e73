/**
 * Runs calls through levels in virtual time: each by the limit of its user, of its organisation, and of all.
 */
import { Clock, Effect } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import type { Arrival, Call, Result } from "effect-throttle/simulation"
import { TestClock } from "effect/testing"

interface Limits {
  readonly user: Throttle.Policy
  readonly organisation: Throttle.Policy
  readonly all: Throttle.Policy
}

/** The key of a call's caller is `organisation/user`. Calls arrive at multiples of 10 ms, run for `runs` ms, and have no bounds. */
export const runLevels = (
  { all, organisation, user }: Limits,
  arrivals: ReadonlyArray<Arrival>,
  { name, runs }: { readonly name: string; readonly runs: number }
): Promise<Result> =>
  Effect.gen(function*() {
    const users = yield* ThrottleMap.make({ lookup: (_user: string) => user })
    const organisations = yield* ThrottleMap.make({ lookup: (_organisation: string) => organisation })
    const overall = yield* Throttle.make(all)
    const calls: Array<Call> = []
    for (let now = 0; calls.length < arrivals.length; now += 10) {
      yield* TestClock.setTime(now)
      for (const { caller: { key = "" } = {} } of arrivals.filter(({ at }) => at === now)) {
        const levels = Throttle.levels([users.get(key), organisations.get(key.split("/")[0]!), overall])
        const call = Effect.map(Clock.currentTimeMillis, (start) => {
          const times = { arrival: now, start, end: start + runs, wait: start - now }
          calls.push({ ...times, cost: 1, caller: key, outcome: "done" })
        })
        yield* Effect.forkChild(levels.withPermit(call), { startImmediately: true })
      }
    }
    return {
      name,
      policies: [user, organisation, all].map(({ data }) => data),
      changes: [],
      calls: calls.toSorted((a, b) => a.arrival - b.arrival)
    }
  }).pipe(Effect.scoped, Effect.provide(TestClock.layer()), Effect.runPromise)
