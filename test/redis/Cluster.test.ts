/**
 * A cluster of three real servers: every operation on every node, and what a node that is stopped or hangs leaves of the
 * others.
 */
import { assert, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Logger, Option, References, Schedule } from "effect"
import { Throttle, type ThrottleError } from "effect-throttle"
import { RedisCluster, RedisStore, RedisThrottle } from "effect-throttle/redis"
import { Redis } from "effect/persistence"
import { readFileSync } from "node:fs"
import { createCluster } from "redis"
import { afterAll, beforeAll } from "vitest"
import { type Cluster, type Node, startCluster } from "../utils/redis-cluster.ts"
import { clientTo, describeRedis, isThere, uniqueKey } from "../utils/redis.ts"

/** The machine is shared, and these tests are not about slow answers. */
const patient = { timeout: "5 seconds" } as const

const bucket = Throttle.tokenBucket({ capacity: 1_000, refill: 1, per: "1 day" })

/** The file's cluster. Every test leaves it as it was. */
let cluster: Cluster

beforeAll(async () => {
  if (isThere) cluster = await startCluster()
}, 30_000)

afterAll(() => cluster?.close())

/** The documented client. */
const createOn = (
  preset: RedisCluster.ClusterPreset,
  nodes: ReadonlyArray<Node>,
  login?: { readonly username: string; readonly password: string }
) =>
  createCluster({
    ...preset,
    rootNodes: nodes.map(({ address: { host, port } }) => ({ socket: { host, port } })),
    defaults: { ...preset.defaults, ...login }
  })

const client = Layer.suspend(() => RedisCluster.layer((preset) => createOn(preset, cluster.nodes)))

/** A map on a client of its own, as another process has it, until the scope closes. */
const mapOn = (
  name: string,
  policy: Throttle.Policy<any>,
  options: Partial<RedisThrottle.MapOptions<string>> = patient,
  redis = client
) =>
  Effect.flatMap(
    Layer.build(Layer.fresh(RedisStore.layer.pipe(Layer.provide(redis)))),
    (store) => Effect.provide(RedisThrottle.makeMap({ name, lookup: () => policy, ...options }), store)
  )

/** A key of a map for each node. */
const keysOf = (name: string) => {
  const keys = new Map<Node, string>()
  for (let i = 0; keys.size < cluster.nodes.length; i++) keys.set(cluster.nodeOf(`{${name}-${i}}`), `${name}-${i}`)
  return cluster.nodes.map((node) => keys.get(node)!)
}

const addressOf = ({ address: { host, port } }: Node) => `${host}:${port}`

type Fault = "is stopped" | "hangs"

const outcomes = { "is stopped": "unavailable", hangs: "timeout" } as const

const begin = (node: Node, fault: Fault) =>
  Effect.promise(async () => fault === "hangs" ? node.hang() : await node.stop())

/** Starts it again, unless it runs. */
const end = (node: Node, fault: Fault) =>
  Effect.promise(async () => {
    if (fault === "hangs") node.wake()
    else if (!node.isUp()) await node.start()
  })

const storeErrorOf = (exit: Exit.Exit<unknown, unknown>) => {
  const { reason } = Option.getOrThrow(Exit.findErrorOption(exit)) as ThrottleError
  return reason._tag === "StoreError" ? reason : assert.fail(reason._tag)
}

/** The messages of all logs of the store, with their nodes. */
const logging = () => {
  const messages: Array<string> = []
  const logger = Logger.make(({ fiber, message }) => {
    const text = String(Array.isArray(message) ? message[0] : message)
    const { node } = fiber.getRef(References.CurrentLogAnnotations)
    if (text.startsWith("throttle.store")) messages.push(node === undefined ? text : `${text} ${node}`)
  })
  return { messages, layer: Logger.layer([logger]) }
}

const quiet = Effect.provide(Logger.layer([]))

describeRedis("a cluster", () => {
  it.live("serves every operation on every node", () =>
    Effect.gen(function*() {
      const name = uniqueKey("tenants")
      const policy = Throttle.all([
        bucket,
        Throttle.window({ limit: 500, per: "1 minute" }),
        Throttle.concurrency({ limit: 1 })
      ])
      const options = { leaseTtl: "1500 millis", ...patient } as const
      const [here, there] = [yield* mapOn(name, policy, options), yield* mapOn(name, policy, options)]
      const operations = (key: string) =>
        Effect.gen(function*() {
          assert.strictEqual(yield* here.withPermit(key)(Effect.succeed(key)), key)
          yield* here.usePermits(key, 1)((permit) => permit.settle(1))
          yield* Effect.scoped(Effect.flatMap(there.takeScoped(key), (permit) => permit.cancel))
          // A lease that is renewed, and another process that waits for it and is told
          const work = here.withPermit(key)(Effect.sleep("700 millis"))
          const held = yield* Effect.forkChild(work, { startImmediately: true })
          yield* Effect.sleep("100 millis")
          yield* there.withPermit(key)(Effect.void)
          yield* Fiber.join(held)
          yield* there.pause(key, "1 minute")
          assert.isTrue(Option.isNone(yield* here.withPermitsIfAvailable(key, 1)(Effect.void)))
          yield* there.resume(key)
          yield* here.withPermit(key)(Effect.void)
        })
      yield* Effect.forEach(keysOf(name), operations, { concurrency: "unbounded" })
      for (const node of cluster.nodes) assert.notStrictEqual(cluster.command(node, "DBSIZE"), "0")
    }).pipe(Effect.scoped, quiet), 30_000)

  it.live("names the node of a key as the servers do", () =>
    Effect.gen(function*() {
      const nodeOf = yield* RedisStore.NodeOf
      const odd = ["a", "{a}b", "a{b}", "{}", "{}{a}", "a{b{c}d}", "}{", "{", "ä€😀", "x{ä€😀}"]
      for (const key of [...odd, uniqueKey("k")]) {
        assert.strictEqual(nodeOf(key), addressOf(cluster.nodeOf(key)), key)
      }
    }).pipe(Effect.provide(client)), 30_000)

  it.live("follows slots that move to another node", () =>
    Effect.gen(function*() {
      const name = uniqueKey("tenants")
      const map = yield* mapOn(name, bucket)
      const [key = ""] = keysOf(name)
      const [from, to] = cluster.nodes as [Node, Node]
      const slot = cluster.command(from, "CLUSTER", "KEYSLOT", `{${key}}`)
      const move = ({ id }: Node) =>
        Effect.sync(() => {
          for (const node of cluster.nodes) cluster.command(node, "CLUSTER", "SETSLOT", slot, "NODE", id)
        })
      yield* Effect.acquireUseRelease(
        move(to),
        () =>
          Effect.gen(function*() {
            yield* map.wait(key)
            yield* map.wait(key)
            assert.strictEqual(cluster.command(to, "DEL", `throttle:${name}:{${key}}`), "1")
          }),
        () => move(from)
      )
    }).pipe(Effect.scoped), 30_000)
})

/** Begins to move a slot, as `redis-cli --cluster reshard` does; `done` moves its keys and ends it. */
const migrate = (slot: string, from: Node, to: Node) => {
  cluster.command(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", from.id)
  cluster.command(from, "CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)
  const { host, port } = to.address
  return {
    done: () => {
      for (const key of cluster.command(from, "CLUSTER", "GETKEYSINSLOT", slot, "100").split("\n")) {
        if (key !== "") cluster.command(from, "MIGRATE", host, String(port), key, "0", "1000")
      }
      for (const node of cluster.nodes) cluster.command(node, "CLUSTER", "SETSLOT", slot, "NODE", to.id)
    }
  }
}

describeRedis("a slot of a cluster that is being moved", () => {
  it.live("does not stop the other keys of its node", () =>
    Effect.gen(function*() {
      const name = uniqueKey("tenants")
      const [from, to] = cluster.nodes as [Node, Node]
      const keys = Array.from({ length: 100 }, (_, i) => `${name}-${i}`)
      const [moved = "", other = ""] = keys.filter((key) => cluster.nodeOf(`{${key}}`) === from)
      const slot = cluster.command(from, "CLUSTER", "KEYSLOT", `{${moved}}`)
      const map = yield* mapOn(
        name,
        Throttle.all([Throttle.window({ limit: 1_000, per: "1 minute" }), Throttle.concurrency({ limit: 5 })])
      )
      yield* map.withPermit(moved)(Effect.void)
      const others = yield* Effect.acquireUseRelease(
        Effect.sync(() => migrate(slot, from, to)),
        () =>
          Effect.forEach(Array.from({ length: 8 }), () =>
            Effect.andThen(
              Effect.forEach([1, 2, 3], () => Effect.exit(map.withPermit(moved)(Effect.void))),
              Effect.exit(map.withPermit(other)(Effect.void))
            )),
        (migration) =>
          Effect.sync(() => {
            migration.done()
            migrate(slot, to, from).done()
          })
      )
      assert.isTrue(others.every(Exit.isSuccess), others.join("\n"))
    }).pipe(Effect.scoped, Effect.provide(Logger.layer([]))), 30_000)
})

describeRedis("a user of a cluster", () => {
  it.live("needs the documented permissions only", () =>
    Effect.gen(function*() {
      const page = readFileSync(new URL("../../docs/distributed.md", import.meta.url), "utf8")
      const rules = /^ACL SETUSER app on >secret (.*)$/m.exec(page)![1]!.split(" ")
      const [, ofCluster = ""] = /On a cluster the client itself needs `([^`]*)`/.exec(page)!
      for (const node of cluster.nodes) {
        cluster.command(node, "ACL", "SETUSER", "app", "on", ">secret", ...rules, ofCluster)
      }
      const asUser = RedisCluster.layer((preset) =>
        createOn(preset, cluster.nodes, { username: "app", password: "secret" })
      )
      const name = uniqueKey("tenants")
      const map = yield* mapOn(name, Throttle.concurrency({ limit: 1 }), patient, asUser)
      for (const key of keysOf(name)) yield* map.withPermit(key)(Effect.void)
    }).pipe(Effect.scoped, Effect.provide(Logger.layer([]))), 30_000)
})

describeRedis("a node of a cluster", () => {
  for (const fault of ["is stopped", "hangs"] as const) {
    it.live(`${fault}: only the keys of its slots fail, until it is back`, () =>
      Effect.gen(function*() {
        const name = uniqueKey("tenants")
        const [key = "", ...others] = keysOf(name)
        const [node] = cluster.nodes as [Node]
        const { layer, messages } = logging()
        yield* Effect.gen(function*() {
          const map = yield* mapOn(name, bucket, { timeout: "300 millis" })
          yield* Effect.forEach([key, ...others], (key) => map.wait(key))
          yield* Effect.acquireUseRelease(
            begin(node, fault),
            () =>
              Effect.gen(function*() {
                const found: Array<string> = []
                for (let round = 0; round < 6; round++) {
                  found.push(storeErrorOf(yield* Effect.exit(map.wait(key))).outcome)
                  yield* Effect.forEach(others, (key) => map.wait(key))
                }
                const failed = outcomes[fault]
                assert.deepStrictEqual(found, [failed, failed, failed, "open", "open", "open"])
              }),
            () => end(node, fault)
          )
          yield* Effect.retry(map.wait(key), { schedule: Schedule.spaced("50 millis"), times: 200 })
        }).pipe(Effect.scoped, Effect.provide(layer))
        const said = ["failed", "open", "recovered"].map((what) => `throttle.store.${what} ${addressOf(node)}`)
        assert.deepStrictEqual(messages, said)
      }), 40_000)

    it.live(
      `${fault} when the client connects: the other nodes serve, and it does once it is back`,
      () =>
        Effect.gen(function*() {
          const name = uniqueKey("tenants")
          const [key = "", ...others] = keysOf(name)
          const [node] = cluster.nodes as [Node]
          const program = Effect.gen(function*() {
            // The first attempt to connect meets the node, the second one another.
            let attempts = 0
            const redis = RedisCluster.layer((preset) =>
              createOn(preset, fault === "hangs" ? [cluster.nodes[attempts++]!] : cluster.nodes)
            )
            const map = yield* mapOn(name, bucket, { timeout: "500 millis" }, redis)
            const began = performance.now()
            for (let round = 0; round < 3; round++) {
              yield* Effect.forEach(others, (key) => map.wait(key))
              assert.strictEqual(storeErrorOf(yield* Effect.exit(map.wait(key))).outcome, outcomes[fault])
            }
            // One that is stopped is known to be, without waiting for a timeout.
            if (fault === "is stopped") assert.isBelow(performance.now() - began, 1_000)
            yield* end(node, fault)
            yield* Effect.retry(map.wait(key), { schedule: Schedule.spaced("50 millis"), times: 200 })
          })
          yield* Effect.acquireUseRelease(begin(node, fault), () => program, () => end(node, fault))
        }).pipe(Effect.scoped, quiet),
      40_000
    )
  }
})

describeRedis("a node of a cluster that has a replica", () => {
  it.live("is stopped: its keys are served again once the replica has taken its place", () =>
    Effect.gen(function*() {
      const own = yield* Effect.acquireRelease(Effect.promise(startCluster), ({ close }) => Effect.promise(close))
      const [node] = own.nodes as [Node]
      const replica = yield* Effect.promise(() => own.addReplica(node))
      const name = uniqueKey("tenants")
      let key = ""
      for (let i = 0; key === "" || own.nodeOf(`{${key}}`) !== node; i++) key = `${name}-${i}`
      const map = yield* mapOn(
        name,
        bucket,
        { timeout: "500 millis" },
        RedisCluster.layer((preset) => createOn(preset, own.nodes))
      )
      yield* map.wait(key, 400)
      // Replication is asynchronous.
      yield* Effect.repeat(Effect.sync(() => own.command(replica, "DBSIZE")), {
        until: (size) => size === "1",
        schedule: Schedule.spaced("20 millis")
      })
      yield* Effect.promise(node.stop)
      storeErrorOf(yield* Effect.exit(map.wait(key)))
      // What was spent is known to the replica.
      const tooMuch = yield* Effect.retry(map.withPermitsIfAvailable(key, 601)(Effect.void), {
        schedule: Schedule.spaced("100 millis"),
        times: 150
      })
      assert.isTrue(Option.isNone(tooMuch))
    }).pipe(Effect.scoped, quiet), 40_000)
})

describeRedis("a cluster that cannot be used", () => {
  it.live(
    "with the client of a single server: an error that names the right one is logged once",
    () =>
      Effect.gen(function*() {
        const { layer, messages } = logging()
        const name = uniqueKey("tenants")
        const program = Effect.gen(function*() {
          const map = yield* RedisThrottle.makeMap({ name, lookup: (_key: string) => bucket, ...patient })
          const keys = keysOf(name)
          const exits = yield* Effect.forEach([...keys, ...keys], (key) => Effect.exit(map.wait(key)))
          const failed = exits.filter(Exit.isFailure).map(storeErrorOf)
          assert.strictEqual(failed.length, 4)
          for (const { detail, outcome } of failed) {
            assert.strictEqual(outcome, "refused")
            assert.strictEqual(detail, "MOVED: the server is a node of a cluster; connect by RedisCluster.layer")
          }
        })
        yield* program.pipe(
          Effect.scoped,
          Effect.provide(RedisStore.layer.pipe(Layer.provide(clientTo(cluster.nodes[0]!.address.port)))),
          Effect.provide(layer)
        )
        assert.deepStrictEqual(messages, ["throttle.store.refused"])
      }),
    30_000
  )

  it.live("because no node is up: the Layer fails at once, and says why", () =>
    Effect.gen(function*() {
      const unused = RedisCluster.layer((preset) =>
        createCluster({ ...preset, rootNodes: [{ socket: { host: "localhost", port: 1 } }], defaults: preset.defaults })
      )
      const error = yield* Effect.flip(Effect.scoped(Layer.build(unused)))
      assert.instanceOf(error, Redis.RedisError)
      assert.match(String((error.cause as Error).message), /ECONNREFUSED/)
    }))
})
