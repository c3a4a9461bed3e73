/**
 * The pictures of the docs, each by its name.
 */
import { Throttle } from "effect-throttle"
import { bursts, list, merge, type Panel, ramp, type Result, run, steady, svg } from "effect-throttle/simulation"
import { runLevels } from "./levels.ts"

/** So many calls at one instant. */
const atOnce = (calls: number, at: number = 0) => list(Array.from({ length: calls }, () => at))

/** How long calls run whose run is not the point. */
const runs = 60

const draw = (results: Result | ReadonlyArray<Result>, panels?: ReadonlyArray<Panel>) => svg(results, { panels })

const ten = Throttle.rate({ limit: 10 })
const five = Throttle.concurrency({ limit: 5 })

/** The first five end at 2 s; the others run for 20 ms. */
const fiveLong = list(Array.from({ length: 20 }, (_, i) => ({ at: 0, runs: i < 5 ? 2_000 - 100 * i : 20 })))

const beforeTheEdge = merge(atOnce(3, 900), atOnce(4, 1_050))
const afterAPause = merge(atOnce(8), atOnce(4, 3_000))

/** A tenant with 20 calls at once, and another one with four, 300 ms apart. */
const flooded = merge(
  bursts({ size: 20, every: 1_000, duration: 1_000, caller: { key: "flooder" } }),
  list([100, 400, 700, 1_000].map((at) => ({ at, caller: { key: "light" } })))
)
const shared = (order: "arrival" | "fair") =>
  run(Throttle.rate({ limit: 10, order }), flooded, { runs, name: `order: "${order}"` })

/** Newsletters at once, and a password reset now and then. */
const mails = merge(
  bursts({ size: 14, every: 1_000, duration: 1_000, caller: { key: "newsletter" } }),
  list([300, 900, 1_500].map((at) => ({ at, caller: { key: "reset", priority: 1 } })))
)

/** Three newsletters, and as many password resets as the limit allows. */
const urgent = merge(
  bursts({ size: 3, every: 1_000, duration: 1_000, caller: { key: "newsletter" } }),
  steady({ rate: 5, duration: "3 seconds", start: 100, caller: { key: "reset", priority: 1 } })
)
const aged = (ageing: string) =>
  run(Throttle.rate({ limit: 5, order: "priority", ageing: ageing as "1 second" }), urgent, {
    runs,
    name: `order: "priority", ageing: "${ageing}"`
  })

/** Many calls of a user, two of a colleague, and two of a user of another organisation. */
const organisations = merge(
  bursts({ size: 8, every: 1_000, duration: 1_000, caller: { key: "acme/ada" } }),
  list([100, 110].map((at) => ({ at, caller: { key: "acme/grace" } }))),
  list([300, 310].map((at) => ({ at, caller: { key: "zeta/linus" } })))
)
const overall = Throttle.rate({ limit: 5 })
const levels = await runLevels(
  { user: Throttle.rate({ limit: 2 }), organisation: Throttle.rate({ limit: 4 }), all: overall },
  organisations,
  { runs, name: "levels: 2 per second for a user, 4 for an organisation, 5 in all" }
)

export const pictures: Readonly<Record<string, string>> = {
  // One for each policy
  rate: draw(run(Throttle.rate({ limit: 5, burst: 3 }), merge(atOnce(10), atOnce(4, 1_850)), { runs })),
  "token-bucket": draw(run(Throttle.tokenBucket({ capacity: 4, refill: 2 }), atOnce(7), { runs })),
  window: draw(
    run(Throttle.window({ limit: 3, per: "1 second" }), list([0, 400, 800, 900, 950, 1_500, 1_600]), { runs })
  ),
  concurrency: draw(run(Throttle.concurrency({ limit: 2 }), atOnce(5), { runs: 300 })),
  spacing: draw([
    run(Throttle.spacing({ interval: 200 }), atOnce(4), { runs: 100 }),
    run(Throttle.spacing({ interval: 200, from: "end" }), atOnce(4), { runs: 100 })
  ]),
  none: draw(run(Throttle.none, steady({ rate: 10, duration: 800 }), { runs: 250 })),
  shadow: draw(
    run(Throttle.shadow(Throttle.rate({ limit: 5 })), steady({ rate: 8, duration: "1.5 seconds" }), { runs })
  ),
  all: draw(
    run(Throttle.all([Throttle.rate({ limit: 5 }), Throttle.concurrency({ limit: 2 })]), atOnce(7), { runs: 600 })
  ),

  // One thing against another
  burst: draw([
    run(Throttle.rate({ limit: 5 }), afterAPause, { runs, name: "5 per second, no burst" }),
    run(Throttle.rate({ limit: 5, burst: 5 }), afterAPause, { runs })
  ]),
  edge: draw([
    run(Throttle.window({ limit: 3, per: "1 second", kind: "fixed" }), beforeTheEdge, { runs }),
    run(Throttle.window({ limit: 3, per: "1 second" }), beforeTheEdge, { runs })
  ]),
  chained: draw([
    run([ten, five], fiveLong, { name: "one after the other: call.pipe(five, ten)" }),
    run(Throttle.all([ten, five]), fiveLong, { name: "together: call.pipe(Throttle.all([ten, five]))" })
  ], ["calls", "starts"]),
  bounds: draw([
    run(Throttle.rate({ limit: 2, maxQueue: 3 }), atOnce(7), { runs }),
    run(Throttle.rate({ limit: 2, maxWait: "1 second" }), atOnce(7), { runs }),
    run(Throttle.rate({ limit: 2, timeout: "1 second" }), atOnce(7), { runs })
  ], ["calls"]),
  fair: draw([shared("arrival"), shared("fair")], ["calls"]),
  priority: draw([
    run(Throttle.rate({ limit: 5 }), mails, { runs, name: "order: \"arrival\"" }),
    run(Throttle.rate({ limit: 5, order: "priority", ageing: "1 minute" }), mails, {
      runs,
      name: "order: \"priority\", ageing: \"1 minute\""
    })
  ], ["calls"]),
  ageing: draw([aged("1 hour"), aged("1 second")], ["calls"]),
  levels: draw([
    run(overall, organisations, { runs, name: "one limit: 5 per second in all" }),
    levels
  ], ["calls"]),
  aligned: draw(run(Throttle.spacing({ interval: 200, align: true }), atOnce(4, 50), { runs })),

  // Limits under change and load
  pause: draw(run(Throttle.rate({ limit: 5 }), steady({ rate: 4, duration: "3 seconds" }), {
    changes: [{ at: 1_100, pause: 900 }],
    runs
  })),
  update: draw(run(Throttle.concurrency({ limit: 1 }), atOnce(10), {
    changes: [{ at: 1_000, update: Throttle.concurrency({ limit: 4 }) }],
    name: "at most 1 at once, after a second 4",
    runs: 400
  })),
  load: draw(run(Throttle.rate({ limit: 10, maxQueue: 30 }), ramp({ from: 5, to: 15, duration: "1 minute" }), {
    runs: 300
  }))
}
