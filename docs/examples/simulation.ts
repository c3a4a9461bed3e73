/**
 * `npm run example:simulation`: how long do calls wait at 80 %, 95 % and 105 % of a limit? An hour of virtual time each.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Effect } from "effect"
import { Throttle } from "effect-throttle"
import * as Simulation from "effect-throttle/simulation"
import * as Terminal from "./terminal.ts"

const limit = 10

const policies = {
  "no burst": Throttle.rate({ limit }),
  "burst 20": Throttle.rate({ limit, burst: 20 }),
  "refuse over 2 s": Throttle.rate({ limit, maxWait: "2 seconds" })
}

/** An hour of independent calls. */
const hourAt = (load: number) => Simulation.poisson({ rate: limit * load, duration: "1 hour", seed: 1 })

const seconds = (millis: number) => (millis / 1_000).toFixed(1)

const percent = (part: number, whole: number, digits: number) => `${(100 * part / whole).toFixed(digits)} %`

const rows = Object.entries(policies).flatMap(([name, policy]) =>
  [0.8, 0.95, 1.05].flatMap((load) => {
    const { calls, started, wait } = Simulation.summary(Simulation.run(policy, hourAt(load)))
    const waits = [wait.mean, wait.p50, wait.p90, wait.p99, wait.max].map(seconds)
    return [[name, percent(load, 1, 0), ...waits, percent(calls - started, calls, 1)]]
  })
)

/** Ten seconds in which a queue builds up. */
const rush = Simulation.run(
  Throttle.all([Throttle.rate({ limit, maxQueue: 20 }), Throttle.concurrency({ limit: 5 })]),
  Simulation.merge(
    Simulation.poisson({ rate: 8, duration: "10 seconds" }),
    Simulation.bursts({ size: 25, every: "5 seconds", duration: "10 seconds", start: "2 seconds" })
  ),
  { runs: "600 millis" }
)

const head = ["policy", "load", "mean", "p50", "p90", "p99", "max", "refused"]

NodeRuntime.runMain(Effect.sync(() => {
  const width = Terminal.width()
  Terminal.print(
    `How long do calls wait for ${limit} calls per second? An hour of random calls, in seconds:`,
    "",
    ...Terminal.table(head, rows, width),
    "",
    "And this is what ten seconds with two rushes look like:",
    "",
    Simulation.text(rush, { width })
  )
}))
