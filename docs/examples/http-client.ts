/**
 * Three clients of a server whose limit they do not know: one that does not care, one that tries again, and one that
 * listens to what the server says.
 */
import { Effect, Schedule } from "effect"
import { Throttle } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { HttpClient } from "effect/http"
import { LimitedServer } from "./limited-server.ts"

export const pages = Array.from({ length: 150 }, (_, i) => i + 1)

export const atOnce = 10

type Client = HttpClient.HttpClient

export const unthrottled = (client: Client): Client => client

export const retrying = (client: Client): Client =>
  client.pipe(HttpClient.retryTransient({ times: 10, schedule: Schedule.exponential("100 millis") }))

/** Makes its state anew, which an app would do once: here each run begins afresh. */
export const listening = (client: Client): Client =>
  client.pipe(HttpThrottle.client(Throttle.concurrency({ limit: atOnce })))

/** All pages at once: how many came, what the server counted, and how long it took. */
export const fetchAll = Effect.fnUntraced(function*(make: (client: Client) => Client) {
  const server = yield* LimitedServer
  const client = make(yield* HttpClient.HttpClient)
  const fetchPage = (page: number) =>
    Effect.flatMap(client.get(`${server.url}/pages/${page}`), ({ status, text }) => Effect.as(text, status))
  const [took, statuses] = yield* Effect.timed(Effect.forEach(pages, fetchPage, { concurrency: "unbounded" }))
  const got = statuses.filter((status) => status === 200).length
  return { ...yield* server.takeCounts, got, took }
})
