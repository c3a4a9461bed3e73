/**
 * Sends a process's requests to a store, with a timeout and a circuit breaker.
 *
 * - Without an answer within `timeout` the decision may have been made, so the request is not repeated. If the answer comes
 *   later, what it grants is returned.
 * - While the breaker is open, requests fail at once. A store that refuses a request has answered: one bad key does not open
 *   the breaker.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import type { Restore } from "../../internal/backend.ts"
import { type StoreFailure, ThrottleStore } from "../ThrottleStore.ts"
import * as Breaker from "./breaker.ts"
import { detailOf } from "./detail.ts"
import * as Wakeups from "./wakeups.ts"

/** Maximum number of different refusals that are logged: a reply may quote the request. */
const mostRefusals = 16

/** A timer that ends later than by this was delayed by this process itself: 5 ms, in nanoseconds. */
const stall = 5e6

export interface Client {
  readonly store: ThrottleStore
  readonly context: Context.Context<never>
  readonly clock: Clock.Clock
  /** The name of this process in the store, and the number of its next lease. */
  readonly owner: string
  nextLease: number
  readonly scope: Scope.Scope
  readonly wakeups: Wakeups.Wakeups
  /** By the name of the store's part. */
  readonly breakers: Map<string, Breaker.Breaker>
  /** The refusals that were logged. */
  readonly refusals: Set<string>
}

const makeUnsafe = (
  store: ThrottleStore,
  scope: Scope.Scope,
  context: Context.Context<never>,
  clock: Clock.Clock
): Client => ({
  store,
  context,
  clock,
  // Not by `Random`, which gives two processes with one seed the same name.
  owner: SecureRandom.uuidV4Unsafe(),
  nextLease: 0,
  scope,
  wakeups: Wakeups.make(),
  breakers: new Map(),
  refusals: new Set()
})

/** Makes a client of the provided store, until the scope closes. */
export const make: Effect.Effect<Client, never, ThrottleStore | Scope.Scope> = Effect.gen(function*() {
  const context = Context.omit(ThrottleStore)(yield* Effect.context<never>()) as Context.Context<never>
  return makeUnsafe(yield* ThrottleStore, yield* Effect.scope, context, yield* Clock.Clock)
})

interface ClientsOfGraph {
  readonly scope: Scope.Scope
  readonly known: Map<object, Client>
}

/** The clients of a Layer graph: one for each server, shared by all throttles on it. */
export const Clients: Context.Service<ClientsOfGraph, ClientsOfGraph> = Context.Service<ClientsOfGraph>(
  "effect-throttle/redis/internal/Clients"
)

export const layer: Layer.Layer<ClientsOfGraph> = Layer.effect(
  Clients,
  Effect.map(Effect.scope, (scope) => ({ scope, known: new Map() }))
)

/** The graph's client of a server, made for its first throttle. */
export const shared = (server: object, storeOf: () => ThrottleStore): Effect.Effect<Client, never, ClientsOfGraph> =>
  Effect.flatMap(Clients, ({ known, scope }) =>
    Effect.withFiber((fiber) => {
      let client = known.get(server)
      if (client === undefined) {
        client = makeUnsafe(storeOf(), scope, fiber.context, fiber.getRef(Clock.Clock))
        known.set(server, client)
      }
      return Effect.succeed(client)
    }))

const time = (client: Client): number => Number(client.clock.monotonicTimeNanosUnsafe())

export const requests = Metric.counter("throttle_store_requests_total", {
  description: "Requests to the store, by outcome",
  incremental: true
})

export const fallbacks = Metric.counter("throttle_store_fallbacks_total", {
  description: "Calls without a decision of the store, by what became of them",
  incremental: true
})

type Outcome = "answered" | "refused" | "timeout" | "unavailable" | "open"

const outcomes: { readonly [O in Outcome]: Metric.Counter<number> } = {
  answered: Metric.withAttributes(requests, { outcome: "answered" }),
  refused: Metric.withAttributes(requests, { outcome: "refused" }),
  timeout: Metric.withAttributes(requests, { outcome: "timeout" }),
  unavailable: Metric.withAttributes(requests, { outcome: "unavailable" }),
  open: Metric.withAttributes(requests, { outcome: "open" })
}

/** Why there is no answer. */
export interface Failure {
  readonly outcome: Exclude<Outcome, "answered">
  readonly detail: string
  /** Nanoseconds after which the next request may be sent. */
  readonly retryAfter: number | undefined
}

/**
 * Sends a request, if the breaker lets it, and waits for its answer for so many nanoseconds.
 *
 * In a region that cannot be interrupted except where `restore` says no answer is lost: `onUnwanted` receives one that comes after
 * the timeout or whose fiber is interrupted.
 */
export const send = <A>(
  client: Client,
  key: string,
  timeout: number,
  request: Effect.Effect<A, StoreFailure>,
  onUnwanted: (answer: A) => void = () => {},
  restore: Restore = identity
): Effect.Effect<A, Failure> =>
  Effect.suspend(() => {
    const { breakers, context, store } = client
    const node = store.nodeOf?.(key) ?? ""
    let breaker = breakers.get(node)
    if (breaker === undefined) breakers.set(node, breaker = Breaker.make())
    const left = Breaker.refusedFor(breaker, time(client), timeout)
    if (left > 0) {
      outcomes.open.updateUnsafe(1, context)
      return Effect.fail<Failure>({ outcome: "open", detail: "the circuit breaker is open", retryAfter: left })
    }
    const sentAt = breaker.counted
    let sent: Fiber.Fiber<A, StoreFailure> | undefined
    const send = Effect.suspend(() => {
      // A request that was sent cannot be called back, so it is not interrupted.
      sent = Effect.runForkWith(context)(request)
      return within(client, timeout, sent)
    })
    const answered = Effect.onExitPrimitive(restore(send), (exit) => {
      if (Exit.isFailure(exit)) sent?.addObserver((exit) => Exit.isSuccess(exit) ? onUnwanted(exit.value) : undefined)
      return undefined
    })
    return Effect.matchEffect(answered, {
      onSuccess: (answer) => {
        outcomes.answered.updateUnsafe(1, context)
        return Effect.as(recovered(breaker, node), answer)
      },
      onFailure: (failure) => {
        const { detail, outcome } = failure
        outcomes[outcome].updateUnsafe(1, context)
        if (outcome === "refused") {
          return Effect.andThen(recovered(breaker, node), logRefusal(client, failure)).pipe(
            Effect.andThen(Effect.fail(failure))
          )
        }
        const change = Breaker.fail(breaker, sentAt, time(client))
        const log = change === undefined
          ? Effect.void
          : Effect.annotateLogs(Effect.logWarning(`throttle.store.${change}`), { outcome, detail, ...named(node) })
        return Effect.andThen(log, Effect.fail(failure))
      }
    })
  })

/** Logs a refusal once for each reply: it may last, and with `onStoreError: "allow"` nothing else shows it. */
const logRefusal = ({ refusals }: Client, { detail }: Failure): Effect.Effect<void> => {
  if (refusals.has(detail) || refusals.size >= mostRefusals) return Effect.void
  refusals.add(detail)
  return Effect.annotateLogs(Effect.logError("throttle.store.refused"), { detail })
}

/** The server answers again. */
const recovered = (breaker: Breaker.Breaker, node: string): Effect.Effect<void> =>
  Breaker.succeed(breaker)
    ? Effect.annotateLogs(Effect.logInfo("throttle.store.recovered"), named(node))
    : Effect.void

const named = (node: string): Record<string, unknown> => node === "" ? {} : { node }

/**
 * The timeout. In a process that was suspended, timers end before it reads the answers that arrived meanwhile, and it may not
 * even have sent the request: then the timeout is a little longer.
 */
const patience = (client: Client, timeout: number): Effect.Effect<void> =>
  Effect.suspend(() => {
    const end = time(client) + timeout
    return Effect.andThen(
      client.clock.sleep(Duration.millis(timeout / 1e6)),
      Effect.suspend(() =>
        time(client) > end + stall ? client.clock.sleep(Duration.millis(2 * stall / 1e6)) : Effect.void
      )
    )
  })

const within = <A>(
  client: Client,
  timeout: number,
  sent: Fiber.Fiber<A, StoreFailure>
): Effect.Effect<A, Failure> =>
  Effect.callback((resume) => {
    const timer = sent.pollUnsafe() === undefined
      ? Effect.runForkWith(client.context)(patience(client, timeout))
      : undefined
    // Only the first of the two counts.
    sent.addObserver((exit) => {
      resume(
        Effect.mapError(exit, ({ cause, outcome }) => ({ outcome, detail: detailOf(cause), retryAfter: undefined }))
      )
      timer?.interruptUnsafe()
    })
    timer?.addObserver(() =>
      resume(Effect.fail({ outcome: "timeout", detail: `no answer within ${timeout / 1e6} ms`, retryAfter: undefined }))
    )
    return Effect.sync(() => timer?.interruptUnsafe())
  })
