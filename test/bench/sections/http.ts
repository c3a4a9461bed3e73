/** What limiting costs a server: requests per second with and without, beside express and fastify with their own. */
import autocannon from "autocannon"
import { type ChildProcess, fork } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import { insist, quick, rounds, type Run } from "../harness.ts"
import { atLeast, atMost, count, ratio, type Row, type Section } from "../report.ts"

const entry = fileURLToPath(new URL("../http-server.js", import.meta.url))

const connections = 16
const seconds = quick ? 0.3 : 0.5

const answer = async (server: ChildProcess): Promise<number> => (await once(server, "message"))[0] as number

const cpu = (server: ChildProcess): Promise<number> => {
  const answered = answer(server)
  server.send("cpu")
  return answered
}

/** This process makes the load; the server has a process of its own, which ends with this one. */
export const own = (name: string): Run => {
  const server = fork(entry, [name])
  const port = answer(server)
  return async () => {
    const url = `http://127.0.0.1:${await port}/`
    const before = await cpu(server)
    const { duration, non2xx, requests: seen, ...result } = await autocannon({
      url,
      connections,
      duration: seconds,
      // Often enough to end in time.
      sampleInt: 20
    })
    const after = await cpu(server)
    insist(result.errors === 0 && seen.total > 0, `${name}: every request is answered`)
    insist(name.endsWith("refused") === non2xx > seen.total / 2, `${name}: answers are what they should be`)
    return { perSecond: seen.total / duration, micros: (after - before) / seen.total }
  }
}

const pairs = [
  ["effect", "effect, limited"],
  ["effect", "effect, limited, and everybody"],
  ["effect", "effect, limited, no fields"],
  ["effect", "effect, all refused"],
  ["express", "express, limited"],
  ["fastify", "fastify, limited"]
] as const

/** What only the long run tells. */
const others: ReadonlySet<string> = new Set([
  "effect, limited, and everybody",
  "effect, limited, no fields",
  "effect, all refused",
  "express, limited"
])

const titles: Readonly<Record<string, string>> = {
  effect: "`effect/http`",
  "effect, limited": "with `HttpThrottle.middleware`",
  "effect, limited, and everybody": "with a `global` policy as well",
  "effect, limited, no fields": "with `fields: \"none\"`",
  "effect, all refused": "with a limit that refuses everybody",
  express: "express",
  "express, limited": "with express-rate-limit",
  fastify: "fastify",
  "fastify, limited": "with @fastify/rate-limit"
}

export const section = async (): Promise<Section> => {
  const kept = pairs.filter(([, name]) => !quick || !others.has(name))
  const names = [...new Set(kept.flat())]
  const seen = await rounds(
    { warmup: quick ? 1 : 2, count: quick ? 3 : 11 },
    Object.fromEntries(names.map((name) => [name, ["http", name]]))
  )
  const figures = (name: string) => seen[name]!
  const cells = (name: string, than = name): ReadonlyArray<string> => [
    count(Math.round(figures(name)["perSecond"]!)),
    ratio(figures(name)["perSecond"]! / figures(than)["perSecond"]!),
    figures(name)["micros"]!.toFixed(1),
    (figures(name)["micros"]! - figures(than)["micros"]!).toFixed(1)
  ]
  const rows = kept.flatMap(([plain, limited], i): ReadonlyArray<Row> => {
    const share = figures(limited)["perSecond"]! / figures(plain)["perSecond"]!
    const [title, figure] = [titles[limited]!, cells(limited, plain)]
    const refusal = figures(limited)["micros"]! / (seen["effect, limited"]?.["micros"] ?? NaN)
    // In a quick run the servers are cold.
    const row = limited === "effect, limited" && !quick
      ? atLeast(title, figure, share, 0.95, " of without")
      : limited === "effect, all refused"
      ? atMost(title, figure, refusal, 1.3, " times the CPU of an answer with a limit")
      : { what: title, figures: figure }
    return i > 0 && kept[i - 1]![0] === plain ? [row] : [{ what: titles[plain]!, figures: cells(plain) }, row]
  })
  return {
    title: "HTTP, with a limit and without",
    about: `A server process that answers a few bytes of JSON, and a process that loads it over ${connections} ` +
      `connections of the loopback interface, ${seconds} s a run. CPU is that of the server's process.`,
    columns: ["requests/s", "of without", "µs CPU a request", "added"],
    rows
  }
}
