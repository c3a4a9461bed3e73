/**
 * A process's requests to a store: how long it waits for an answer, and when it stops asking.
 *
 * - No answer within `timeout`: the decision may have been made, so it is never asked for again. If the answer comes late
 *   after all, what it granted is given back, as far as nothing has changed since.
 * - While the breaker is open, requests fail at once. A store that refuses a request answers, and so has not failed: one
 *   bad key does not open it.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import { type Decision, leaseOf, type Request, type StoreFailure, ThrottleStore } from "../ThrottleStore.ts"
import * as Breaker from "./breaker.ts"
import { detailOf } from "./detail.ts"
import * as Wakeups from "./wakeups.ts"

/** So many different refusals are logged at most: a reply may quote the request. */
const mostRefusals = 16

/** A timer that ends later than by this has been held up by this process itself: 5 ms, in nanoseconds. */
const stall = 5e6

export interface Client {
  readonly store: ThrottleStore
  readonly context: Context.Context<never>
  readonly clock: Clock.Clock
  /** What this process is called in the store, and the number of its next lease there: no two leases are called alike. */
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
  // Not by `Random`: in two processes with the same seed that gives the same name.
  owner: SecureRandom.uuidV4Unsafe(),
  nextLease: 0,
  scope,
  wakeups: Wakeups.make(),
  breakers: new Map(),
  refusals: new Set()
})

/** A client of the store that is provided, until the scope closes. */
export const make: Effect.Effect<Client, never, ThrottleStore | Scope.Scope> = Effect.gen(function*() {
  const context = Context.omit(ThrottleStore)(yield* Effect.context<never>()) as Context.Context<never>
  return makeUnsafe(yield* ThrottleStore, yield* Effect.scope, context, yield* Clock.Clock)
})

interface ClientsOfGraph {
  readonly scope: Scope.Scope
  readonly known: Map<object, Client>
}

/** The clients of a Layer graph: one for each server, shared by all throttles that are on it. */
export const Clients: Context.Service<ClientsOfGraph, ClientsOfGraph> = Context.Service<ClientsOfGraph>(
  "effect-throttle/redis/internal/Clients"
)

export const layer: Layer.Layer<ClientsOfGraph> = Layer.effect(
  Clients,
  Effect.map(Effect.scope, (scope) => ({ scope, known: new Map() }))
)

/** The graph's client of a server; the first throttle that is on the server makes it. */
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

// ---------------------------------------------------------------------------------------------------------------------
// Metrics
// ---------------------------------------------------------------------------------------------------------------------

export const decisions = Metric.counter("throttle_store_requests_total", {
  description: "Requests to the store, by outcome",
  incremental: true
})

export const fallbacks = Metric.counter("throttle_store_fallbacks_total", {
  description: "Calls that the store gave no decision for, by what became of them",
  incremental: true
})

type Outcome = "answered" | "refused" | "timeout" | "unavailable" | "open"

const outcomes: { readonly [O in Outcome]: Metric.Counter<number> } = {
  answered: Metric.withAttributes(decisions, { outcome: "answered" }),
  refused: Metric.withAttributes(decisions, { outcome: "refused" }),
  timeout: Metric.withAttributes(decisions, { outcome: "timeout" }),
  unavailable: Metric.withAttributes(decisions, { outcome: "unavailable" }),
  open: Metric.withAttributes(decisions, { outcome: "open" })
}

// ---------------------------------------------------------------------------------------------------------------------
// Asking
// ---------------------------------------------------------------------------------------------------------------------

/** Why there is no answer. */
export interface Silence {
  readonly outcome: Exclude<Outcome, "answered">
  readonly detail: string
  /** When it may be asked again, in nanoseconds from now. */
  readonly retryAfter: number | undefined
}

/** What an answer is put into before the fiber that waits for it goes on. */
interface Letterbox<A> {
  answer: A | undefined
}

/**
 * Asks the store within so many nanoseconds, if the breaker lets it. `onLate` gets an answer that nobody waits for: one
 * that comes too late, or that finds its fiber interrupted just then.
 */
const ask = <A>(
  client: Client,
  key: string,
  timeout: number,
  request: Effect.Effect<A, StoreFailure>,
  onLate: (answer: A) => Effect.Effect<unknown, StoreFailure>
): Effect.Effect<A, Silence> =>
  Effect.suspend(() => {
    const node = client.store.nodeOf?.(key) ?? ""
    const breaker = breakerOf(client, node)
    const left = Breaker.refusedFor(breaker, time(client), timeout)
    if (left > 0) {
      outcomes.open.updateUnsafe(1, client.context)
      return Effect.fail<Silence>({ outcome: "open", detail: "it is left alone for a while", retryAfter: left })
    }
    const sentAt = breaker.counted
    const letterbox: Letterbox<A> = { answer: undefined }
    const answered = Effect.matchEffect(within(client, timeout, request, letterbox, onLate), {
      onSuccess: (answer) => {
        outcomes.answered.updateUnsafe(1, client.context)
        return Effect.as(recovered(breaker, node), answer)
      },
      onFailure: (silence) => {
        outcomes[silence.outcome].updateUnsafe(1, client.context)
        if (silence.outcome === "refused") {
          return Effect.andThen(
            Effect.andThen(recovered(breaker, node), logRefusal(client, silence)),
            Effect.fail(silence)
          )
        }
        const change = Breaker.fail(breaker, sentAt, time(client))
        const told = change === undefined
          ? Effect.void
          : Effect.annotateLogs(Effect.logWarning(`throttle.store.${change}`), {
            outcome: silence.outcome,
            detail: silence.detail,
            ...named(node)
          })
        return Effect.andThen(told, Effect.fail(silence))
      }
    })
    return Effect.onExitPrimitive(answered, (exit) => {
      const { answer } = letterbox
      if (Exit.isFailure(exit) && answer !== undefined) late(client, onLate(answer))
      return undefined
    }, true)
  })

/** Logs a refusal once for each reply: it may last, and with `onStoreError: "allow"` nothing else would show it. */
const logRefusal = ({ refusals }: Client, { detail }: Silence): Effect.Effect<void> => {
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

const breakerOf = ({ breakers }: Client, node: string): Breaker.Breaker => {
  let breaker = breakers.get(node)
  if (breaker === undefined) breakers.set(node, breaker = Breaker.make())
  return breaker
}

const late = (client: Client, effect: Effect.Effect<unknown, StoreFailure>): void =>
  void Effect.runForkWith(client.context)(Effect.ignore(effect))

/**
 * A process that stands still sees its timers end before it reads what has come meanwhile, and may not even have sent what
 * it asked: then the store is given a moment more.
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
  request: Effect.Effect<A, StoreFailure>,
  letterbox: Letterbox<A>,
  onLate: (answer: A) => Effect.Effect<unknown, StoreFailure>
): Effect.Effect<A, Silence> =>
  Effect.callback((resume) => {
    let isOver = false
    const run = Effect.runForkWith(client.context)
    // A request that was sent cannot be called back, so nobody interrupts it.
    const asked = run(request)
    const timer = asked.pollUnsafe() === undefined
      ? run(patience(client, timeout))
      : undefined
    asked.addObserver((exit) => {
      if (isOver) {
        if (Exit.isSuccess(exit)) late(client, onLate(exit.value))
        return
      }
      isOver = true
      if (Exit.isSuccess(exit)) letterbox.answer = exit.value
      timer?.interruptUnsafe()
      resume(Effect.mapError(exit, ({ cause, outcome }): Silence => ({
        outcome,
        detail: detailOf(cause),
        retryAfter: undefined
      })))
    })
    timer?.addObserver(() => {
      if (isOver) return
      isOver = true
      resume(Effect.fail({ outcome: "timeout", detail: `no answer within ${timeout / 1e6} ms`, retryAfter: undefined }))
    })
    return Effect.sync(() => {
      isOver = true
      timer?.interruptUnsafe()
    })
  })

const sum = (amounts: ReadonlyArray<ReadonlyArray<number>>, length: number): ReadonlyArray<number> =>
  Array.from({ length }, (_, i) => amounts.reduce((all, one) => all + one[i]!, 0))

/** A request that takes back all that an answer granted, and nothing else. Who still waits keeps the place in line. */
const undone = (request: Request, decision: Decision, isWaiting: boolean): Request => {
  const calls = request.runs.flatMap((run) => Array.from({ length: run.count }, () => run))
  const granted = calls.slice(0, decision.granted)
  const slot = decision.slot === undefined ? undefined : calls[decision.granted]
  return {
    ...request,
    returns: {
      version: decision.version,
      slot: slot === undefined ? undefined : { at: decision.slot!.at, timings: slot.timings },
      grants: { at: decision.now, timings: sum(granted.map(({ timings }) => timings), request.rules.timings.length) }
    },
    settlements: [],
    releases: (slot === undefined ? granted : [...granted, slot]).map(({ gates }, i) =>
      leaseOf(request.rules, request.owner, request.firstLease + i, gates)
    ),
    runs: [],
    joins: !isWaiting
  }
}

/** `isWaiting`: whether somebody of this process still waits for permits of the key when the answer comes too late. */
export const decide = (
  client: Client,
  timeout: number,
  request: Request,
  isWaiting: () => boolean
): Effect.Effect<Decision, Silence> =>
  ask(
    client,
    request.key,
    timeout,
    client.store.decide(request),
    (late) => request.isDry ? Effect.void : client.store.decide(undone(request, late, isWaiting()))
  )

export const renew = (
  client: Client,
  timeout: number,
  key: string,
  leases: ReadonlyArray<string>,
  ttl: number
): Effect.Effect<ReadonlyArray<boolean>, Silence> =>
  ask(client, key, timeout, client.store.renew(key, leases, ttl), () => Effect.void)

export const pause = (client: Client, timeout: number, key: string, micros: number): Effect.Effect<void, Silence> =>
  ask(client, key, timeout, client.store.pause(key, micros), () => Effect.void)
