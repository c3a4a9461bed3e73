/**
 * Subscribes to the store's messages that permits may be free.
 */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import type { ThrottleStore } from "../ThrottleStore.ts"
import { detailOf } from "./detail.ts"

export interface Wakeups {
  /** What to run when permits of a key may be free. */
  readonly listeners: Map<string, Set<() => void>>
  /** By channel: throttles with different prefixes have different ones. */
  readonly subscriptions: Map<string, Subscription>
}

/** The part of a client that is needed here. */
interface Receiver {
  readonly store: ThrottleStore
  readonly context: Context.Context<never>
  readonly clock: Clock.Clock
  readonly owner: string
  readonly scope: Scope.Scope
  readonly wakeups: Wakeups
}

interface Subscription {
  state: "none" | "starting" | "live"
  /** Attempts in a row that ended within a second. */
  failures: number
}

export const make = (): Wakeups => ({ listeners: new Map(), subscriptions: new Map() })

/** The channel of all throttles with a prefix, to which a process adds its name. It begins as their keys do, for access rules. */
export const channelOf = (prefix: string): string => `${prefix}wake:`

/** Runs `wake` whenever permits of the key may be free, until the returned function is called. */
export const listen = ({ wakeups: { listeners } }: Receiver, key: string, wake: () => void): () => void => {
  const all = listeners.get(key) ?? new Set()
  listeners.set(key, all.add(wake))
  return () => {
    all.delete(wake)
    if (all.size === 0 && listeners.get(key) === all) listeners.delete(key)
  }
}

/**
 * Whether messages of a channel arrive. The first call subscribes, with a connection for the whole process. An attempt that
 * fails, or a subscription that ends, is followed by another after a second, and after up to a minute where all fail.
 */
export const isSubscribed = (client: Receiver, channel: string): boolean => {
  const { subscriptions } = client.wakeups
  let subscription = subscriptions.get(channel)
  if (subscription === undefined) subscriptions.set(channel, subscription = { state: "none", failures: 0 })
  if (subscription.state === "none") {
    subscription.state = "starting"
    Effect.runForkWith(client.context)(Effect.forkIn(subscribe(client, channel, subscription), client.scope))
  }
  return subscription.state === "live"
}

/** A subscription that ends sooner has failed: 1 s, in nanoseconds. */
const shortest = 1e9

const subscribe = (client: Receiver, channel: string, subscription: Subscription): Effect.Effect<void> =>
  Effect.gen(function*() {
    const began = client.clock.monotonicTimeNanosUnsafe()
    const received = Effect.scoped(Effect.gen(function*() {
      const keys = yield* client.store.wakeups(channel + client.owner)
      subscription.state = "live"
      while (true) {
        const key = yield* Queue.take(keys)
        client.wakeups.listeners.get(key)?.forEach((wake) => wake())
      }
    }))
    const cause = yield* Effect.flip(Effect.sandbox(received))
    subscription.state = "starting"
    const hasFailed = Number(client.clock.monotonicTimeNanosUnsafe() - began) < shortest
    subscription.failures = hasFailed ? subscription.failures + 1 : 0
    if (subscription.failures === 1) {
      const error = Cause.squash(cause)
      const detail = detailOf(error instanceof Error && error.cause !== undefined ? error.cause : error)
      yield* Effect.annotateLogs(Effect.logWarning("throttle.store.polling"), { channel, detail })
    }
    yield* client.clock.sleep(Duration.seconds(Math.min(60, 2 ** Math.max(0, subscription.failures - 1))))
    subscription.state = "none"
  })
