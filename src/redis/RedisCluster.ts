/**
 * Effect's `Redis` on a Redis Cluster, by the cluster client of node-redis.
 *
 * @since 0.1.0
 * @module RedisCluster
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redis from "effect/persistence/Redis"
import { detailOf } from "./internal/detail.ts"
import { firstKeyOf, slotOf } from "./internal/slots.ts"
import { NodeOf } from "./RedisStore.ts"

/**
 * A node of a cluster, as the client knows it.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClusterNode {
  /** Host and port. */
  readonly address: string
  /** The connection to it, once there was an attempt to connect. */
  readonly client?: {
    readonly isOpen: boolean
    readonly isReady: boolean
    connect(): Promise<unknown>
  } | undefined
}

/**
 * The part of a node-redis cluster client that {@link layer} uses: what `createCluster` of `redis` 5 or 6 returns.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClusterClient {
  readonly masters: ReadonlyArray<ClusterNode>
  readonly slots: ReadonlyArray<{ readonly master: ClusterNode }>
  readonly isOpen: boolean
  connect(): Promise<unknown>
  destroy(): void
  nodeClient(node: ClusterNode): Promise<unknown>
  on(event: string, listener: (...args: Array<unknown>) => void): unknown
  sendCommand(key: string | undefined, isReadonly: boolean | undefined, args: Array<string>): Promise<unknown>
  subscribe(channel: string, listener: (message: string, channel: string) => void): Promise<unknown>
  unsubscribe(channel: string): Promise<unknown>
}

/**
 * Options for `createCluster` with which a throttle works on the nodes that are up while others are down.
 *
 * @category options
 * @since 0.1.0
 */
export interface ClusterPreset {
  /** Nodes are connected one by one, so that one that is down does not keep the client from connecting. */
  readonly minimizeConnections: true
  /** Milliseconds after which the client looks for the node that has replaced one that is down. By default 5 s. */
  readonly topologyRefreshOnReconnectionAttemptStrategy: number
  /** Options of each connection. */
  readonly defaults: {
    /** Commands for a node that is not connected fail at once. By default they wait, and are sent when no call waits. */
    readonly disableOfflineQueue: true
    readonly socket: {
      /** Again after 25, 50, … at most 250 ms. */
      readonly reconnectStrategy: (retries: number, cause: Error) => number | Error
    }
  }
}

const redisError = (cause: unknown): Redis.RedisError => new Redis.RedisError({ cause })

/** `close` would wait for the replies of nodes that hang. */
const destroy = (cluster: ClusterClient): void => {
  if (cluster.isOpen) cluster.destroy()
}

/** The address in an event of a node. */
const addressOf = (node: unknown): string => {
  const { host, port } = node as { readonly host: string; readonly port: number }
  return `${host}:${port}`
}

/**
 * The Layer of Effect's `Redis` on a cluster client, for the throttles of `RedisThrottle`. A node that is down affects only
 * the keys of its slots: each node has a circuit breaker of its own.
 *
 * **When to use**
 *
 * With Redis Cluster, or Valkey in cluster mode, where the client of a single server gets MOVED replies. Not for a single
 * server: there use `RedisThrottle.layerClient`.
 *
 * **Details**
 *
 * Pass the preset to `createCluster`, with your own `defaults` (a password, TLS) beside its `defaults`. All keys of a
 * throttle, and of a key of a map, are in one slot; different keys spread over the nodes. The cluster has to run with
 * `cluster-require-full-coverage no`, or one node that is down stops all of them.
 *
 * As a general `Redis` it sends a command to the node of its first key, and a command without keys to any node. It has no
 * connections to reserve.
 *
 * **Errors**
 *
 * Building the Layer fails with a `RedisError` if no root node can be reached, or the attempts to connect, 6 of 2 seconds,
 * meet nodes that hang. It succeeds while other nodes are down.
 *
 * **Example**
 *
 * ```ts no-run
 * import { Effect, Layer } from "effect"
 * import { Throttle } from "effect-throttle"
 * import { RedisCluster, RedisThrottle } from "effect-throttle/redis"
 * import { createCluster } from "redis"
 *
 * const RedisLive = RedisCluster.layer((preset) =>
 *   createCluster({
 *     ...preset,
 *     rootNodes: [{ url: "redis://10.0.0.1:6379" }, { url: "redis://10.0.0.2:6379" }],
 *     defaults: { ...preset.defaults, username: "app", password: "secret" }
 *   })
 * )
 *
 * const GitHubLive = RedisThrottle.layer(Throttle.rate({ limit: 10 }), { key: "github" }).pipe(Layer.provide(RedisLive))
 *
 * await Effect.runPromise(Throttle.wait().pipe(Effect.provide(GitHubLive)))
 * ```
 *
 * @see `RedisThrottle.layerClient` for a single server
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  client: (preset: ClusterPreset) => ClusterClient
): Layer.Layer<Redis.Redis, Redis.RedisError> => Layer.effectContext(make(client))

/** A root node that hangs keeps a client from connecting for ever: then another client may begin with another node. */
const patience = "2 seconds"
const mostAttempts = 6

const make = Effect.fnUntraced(function*(client: (preset: ClusterPreset) => ClusterClient) {
  let isReady = false
  const reconnectStrategy = (retries: number, cause: Error): number | Error =>
    isReady ? Math.min(25 * (retries + 1), 250) : cause
  const preset: ClusterPreset = {
    minimizeConnections: true,
    topologyRefreshOnReconnectionAttemptStrategy: 1_000,
    defaults: { disableOfflineQueue: true, socket: { reconnectStrategy } }
  }
  /** Nodes without a connection, by address, and why. */
  const failing = new Map<string, string>()
  const connect = Effect.flatMap(Effect.try({ try: () => client(preset), catch: redisError }), (cluster) => {
    let lastError: string | undefined
    // Without a listener an error would end the process.
    cluster.on("error", (error) => {
      lastError = detailOf(error)
    })
    cluster.on("node-error", (error, node) => void failing.set(addressOf(node), detailOf(error)))
    cluster.on("node-ready", (node) => void failing.delete(addressOf(node)))
    return Effect.tryPromise({
      try: () => cluster.connect(),
      catch: (error) => redisError(lastError === undefined ? error : new Error(`${detailOf(error)} (${lastError})`))
    }).pipe(
      Effect.timeoutOption(patience),
      Effect.onExit((exit) =>
        Effect.sync(() => {
          if (Exit.isFailure(exit) || Option.isNone(exit.value)) destroy(cluster)
        })
      ),
      Effect.map(Option.as(cluster))
    )
  })
  const attempts = Effect.repeat(connect, { times: mostAttempts - 1, until: Option.isSome })
  const cluster = yield* Effect.acquireRelease(
    Effect.flatMap(attempts, (connected) =>
      Option.isSome(connected)
        ? Effect.succeed(connected.value)
        : Effect.fail(redisError(new Error(`no root node has answered within ${patience}`)))),
    (cluster) => Effect.sync(() => destroy(cluster)),
    { interruptible: true }
  )
  // Nodes that are down or hang are left out here, and tried again by the first command for them.
  const connected = Effect.promise(() => Promise.allSettled(cluster.masters.map((node) => cluster.nodeClient(node))))
  yield* Effect.raceFirst(connected, Effect.sleep("1 second"))
  isReady = true

  const masterOf = (key: string): ClusterNode | undefined => cluster.slots[slotOf(key)]?.master
  /** Why a command for a node would wait for its connection, perhaps until no call waits for the reply any more. */
  const unreachable = (node: ClusterNode | undefined): string | undefined => {
    if (node === undefined || node.client?.isReady === true) return undefined
    const why = failing.get(node.address)
    // It has given up: the next command finds another attempt under way.
    if (why !== undefined && node.client?.isOpen !== true) {
      void (node.client === undefined ? cluster.nodeClient(node) : node.client.connect()).catch(() => {})
    }
    return why
  }

  const redis = yield* Redis.make({
    send: <A>(command: string, ...args: ReadonlyArray<string>) =>
      Effect.suspend(() => {
        const key = firstKeyOf(command, args)
        const why = key === undefined ? undefined : unreachable(masterOf(key))
        return why === undefined
          ? Effect.tryPromise({
            try: () => cluster.sendCommand(key, false, [command, ...args]) as Promise<A>,
            catch: redisError
          })
          : Effect.fail(redisError(new Error(why)))
      }),
    subscribe: (channel, onMessage) => {
      const listener = (message: string, channel: string) => onMessage({ channel, message })
      return Effect.as(
        Effect.acquireRelease(
          Effect.tryPromise({ try: () => cluster.subscribe(channel, listener), catch: redisError }),
          // Not waited for: the node may hang.
          () => Effect.sync(() => void cluster.unsubscribe(channel).catch(() => {}))
        ),
        Effect.never
      )
    },
    connect: Effect.fail(redisError(new Error("RedisCluster.layer: a cluster client has no connections to reserve")))
  })
  return Context.make(Redis.Redis, redis).pipe(
    Context.add(NodeOf, (key) => masterOf(key)?.address ?? "")
  )
})
