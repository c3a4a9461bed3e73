/**
 * Three clients of a server with an unknown limit: without a throttle, with retries, and with a throttle that learns the
 * limit from the responses.
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

/** Creates its state for each run; an app would create it once. */
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
