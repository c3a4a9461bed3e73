/**
 * A {@link ThrottleStore} in this process, by the meters of throttles in memory.
 *
 * @since 0.1.0
 * @module MemoryStore
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Protocol from "./internal/protocol.ts"
import { micros } from "./internal/rules.ts"
import { type Request, type StoreFailure, ThrottleStore } from "./ThrottleStore.ts"

/**
 * Makes a store whose clock shows microseconds. `wall` returns the milliseconds of the wall clock at an instant in
 * nanoseconds.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (now: () => number, wall: (at: number) => number): ThrottleStore => {
  const keys = new Map<string, Protocol.State>()
  const stateOf = (key: string) => keys.get(key) ?? Protocol.initial
  const subscribers = new Map<string, Queue.Queue<string, StoreFailure>>()
  const apply = ({ channel, key }: Request, { notify, state }: Protocol.Outcome): void => {
    keys.set(key, state)
    const subscriber = subscribers.get(`${channel}${notify}`)
    if (notify !== undefined && subscriber !== undefined) Queue.offerUnsafe(subscriber, key)
  }
  return {
    decide: (request) =>
      Effect.sync(() => {
        const outcome = Protocol.decide(stateOf(request.key), request, now(), wall)
        apply(request, outcome)
        return outcome.decision
      }),
    decideTogether: (requests) =>
      Effect.sync(() => {
        const { answer, outcomes } = Protocol.decideTogether(requests, stateOf, now(), wall)
        outcomes.forEach((outcome, i) => apply(requests[i]!, outcome))
        return answer
      }),
    renew: (key, leases, ttl) =>
      Effect.sync(() => {
        const { answers, state } = Protocol.renew(stateOf(key), leases, ttl, now())
        keys.set(key, state)
        return answers
      }),
    pause: (key, duration) => Effect.sync(() => void keys.set(key, Protocol.pause(stateOf(key), duration, now()))),
    reset: (key) => Effect.sync(() => void keys.set(key, Protocol.reset(stateOf(key), now()))),
    wakeups: (channel) =>
      Effect.acquireRelease(
        Effect.tap(
          Queue.unbounded<string, StoreFailure>(),
          (queue) => Effect.sync(() => subscribers.set(channel, queue))
        ),
        (queue) =>
          Effect.suspend(() => {
            subscribers.delete(channel)
            return Queue.shutdown(queue)
          })
      )
  }
}

/**
 * Provides a store on Effect's Clock, so also on a TestClock: to test a policy that processes share, without Redis.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<ThrottleStore> = Layer.effect(
  ThrottleStore,
  Effect.map(Clock.Clock, (clock) => {
    const nanos = () => Number(clock.monotonicTimeNanosUnsafe())
    return make(() => Math.floor(micros(nanos())), (at) => clock.currentTimeMillisUnsafe() + (at - nanos()) / 1e6)
  })
)
