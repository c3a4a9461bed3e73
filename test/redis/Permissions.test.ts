/**
 * A Redis that does not permit everything: a user without channels, with the documented permissions only, and servers that
 * refuse SCRIPT, EVALSHA or all scripts.
 */
import { assert, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Logger, Option } from "effect"
import { Throttle, type ThrottleError } from "effect-throttle"
import { RedisStore, RedisThrottle } from "effect-throttle/redis"
import { Redis } from "effect/persistence"
import { readFileSync } from "node:fs"
import { clientTo, describeRedis, ownServer } from "../utils/redis.ts"

/** The machine is shared, and these tests are not about slow answers. */
const patient = { timeout: "5 seconds" } as const

const login = { username: "app", password: "secret" } as const

/** Sends a command as the default user. */
const admin = (port: number, command: string, ...args: ReadonlyArray<string>) =>
  Effect.scoped(Effect.provide(Effect.flatMap(Redis.Redis, (redis) => redis.send(command, ...args)), clientTo(port)))

/** A server with a user of these permissions. */
const serverFor = (...rules: ReadonlyArray<string>) =>
  Effect.tap(ownServer(), ({ address: { port } }) => admin(port, "ACL", "SETUSER", "app", "on", ">secret", ...rules))

/** A throttle on a connection of its own, as another process has it, until the scope closes. */
const processOn = (
  port: number,
  policy: Throttle.Policy<any>,
  options: Partial<RedisThrottle.Options> = {},
  user: typeof login | {} = login
) =>
  Effect.flatMap(
    Layer.build(Layer.fresh(RedisStore.layer.pipe(Layer.provide(clientTo(port, user))))),
    (store) => Effect.provide(RedisThrottle.make(policy, { key: "shared", ...patient, ...options }), store)
  )

/** The ACL rules that the page on many processes gives. */
const documented = (): ReadonlyArray<string> => {
  const page = readFileSync(new URL("../../docs/distributed.md", import.meta.url), "utf8")
  return /^ACL SETUSER app on >secret (.*)$/m.exec(page)?.[1]?.split(" ") ?? assert.fail("no ACL in the docs")
}

/** The messages of all logs of the store. */
const logging = () => {
  const messages: Array<string> = []
  const logger = Logger.make(({ message }) => {
    const text = String(Array.isArray(message) ? message[0] : message)
    if (text.startsWith("throttle.store")) messages.push(text)
  })
  return { messages, layer: Logger.layer([logger]) }
}

/** Takes turns with others for permits, and counts how many run at once. */
const work = (throttle: Throttle.Throttle, running: { now: number; most: number }) =>
  throttle.withPermit(Effect.acquireUseRelease(
    Effect.sync(() => {
      running.most = Math.max(running.most, ++running.now)
    }),
    () => Effect.sleep("5 millis"),
    () => Effect.sync(() => running.now--)
  ))

const quiet = Effect.provide(Logger.layer([]))

describeRedis("a user without channels", () => {
  it.live("shares permits by polling, and none is lost", () =>
    Effect.gen(function*() {
      const { address: { port } } = yield* serverFor("resetchannels", "~throttle:*", "+@all")
      const policy = Throttle.concurrency({ limit: 2 })
      const processes = yield* Effect.forEach([1, 2, 3], () => processOn(port, policy))
      const running = { now: 0, most: 0 }
      const calls = processes.flatMap((throttle) => Array.from({ length: 10 }, () => work(throttle, running)))
      yield* Effect.all(calls, { concurrency: "unbounded" }).pipe(Effect.timeout("15 seconds"))
      assert.strictEqual(running.most, 2)
      // All permits are free again, although others are held: the count is right.
      yield* Effect.forEach([0, 1], (i) => processes[i]!.takeScoped())
      assert.isTrue(Option.isNone(yield* processes[2]!.withPermitsIfAvailable(Effect.void, 1)))
    }).pipe(Effect.scoped, quiet), 20_000)

  it.live("is told once that it polls", () =>
    Effect.gen(function*() {
      const { address: { port } } = yield* serverFor("resetchannels", "~throttle:*", "+@all")
      const { layer, messages } = logging()
      yield* Effect.gen(function*() {
        const throttle = yield* processOn(port, Throttle.concurrency({ limit: 1 }))
        yield* throttle.takeScoped()
        yield* Effect.timeoutOption(throttle.withPermit(Effect.void), "3500 millis")
      }).pipe(Effect.scoped, Effect.provide(layer))
      assert.deepStrictEqual(messages, ["throttle.store.polling"])
    }).pipe(Effect.scoped), 20_000)
})

describeRedis("a publisher without channels", () => {
  it.live("does not make a process lose its place that could be told, but is not", () =>
    Effect.gen(function*() {
      const { address: { port } } = yield* serverFor("resetchannels", "~throttle:*", "+@all")
      const policy = Throttle.concurrency({ limit: 1 })
      const silent = yield* processOn(port, policy)
      // Subscribed, so it looks only now and then
      const listening = yield* processOn(port, policy, {}, {})
      for (let i = 0; i < 5; i++) {
        const held = yield* Effect.forkChild(silent.withPermit(Effect.sleep("300 millis")), { startImmediately: true })
        yield* Effect.sleep("100 millis")
        const first = yield* Effect.forkChild(listening.withPermit(Effect.succeed("first")), { startImmediately: true })
        yield* Effect.sleep("100 millis")
        const order: Array<string> = []
        const second = yield* Effect.forkChild(
          silent.withPermit(Effect.sync(() => void order.push("second"))),
          { startImmediately: true }
        )
        yield* Effect.tap(Fiber.join(first), () => Effect.sync(() => void order.unshift("first")))
        yield* Fiber.join(second)
        yield* Fiber.join(held)
        assert.deepStrictEqual(order, ["first", "second"])
      }
    }).pipe(Effect.scoped, quiet), 30_000)
})

describeRedis("a user with the documented permissions", () => {
  it.live("can do all that a throttle does, messages included", () =>
    Effect.gen(function*() {
      const { address: { port } } = yield* serverFor(...documented())
      const policy = Throttle.all([
        Throttle.tokenBucket({ capacity: 100, refill: 100 }),
        Throttle.window({ limit: 100, per: "500 millis" }),
        Throttle.window({ limit: 2_000, per: "500 millis", name: "large" }),
        Throttle.window({ limit: 100, per: "1 second", kind: "fixed" }),
        Throttle.spacing({ interval: "1 millis" }),
        Throttle.concurrency({ limit: 2 })
      ])
      const processes = yield* Effect.forEach([1, 2], () => processOn(port, policy, { leaseTtl: "1500 millis" }))
      const running = { now: 0, most: 0 }
      for (let round = 0; round < 3; round++) {
        const calls = processes.flatMap((throttle) => Array.from({ length: 6 }, () => work(throttle, running)))
        yield* Effect.all(calls, { concurrency: "unbounded" })
        yield* processes[0]!.pause("10 millis")
        yield* processes[0]!.resume
        // A lease is renewed, settled, and taken back.
        yield* processes[0]!.usePermits(1)((permit) => Effect.andThen(Effect.sleep("600 millis"), permit.settle(2)))
        yield* Effect.scoped(Effect.flatMap(processes[1]!.takeScoped(), (permit) => permit.cancel))
        const waiting = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(processes[1]!.withPermit(Effect.never)))
        yield* Effect.sleep("50 millis")
        yield* Fiber.interruptAll(waiting)
      }
      assert.strictEqual(running.most, 2)
      const channels = (yield* admin(port, "PUBSUB", "CHANNELS", "*")) as Array<string>
      assert.lengthOf(channels, 2)
      for (const channel of channels) assert.match(channel, /^throttle:/)
      const denied = (yield* admin(port, "ACL", "LOG")) as ReadonlyArray<{ readonly object: string }>
      // The client tells its name and version, and does without.
      assert.deepStrictEqual(denied.filter(({ object }) => !object.startsWith("client")), [])
    }).pipe(Effect.scoped, quiet), 20_000)
})

describeRedis("a server that refuses", () => {
  const bucket = Throttle.tokenBucket({ capacity: 3, refill: 1, per: "1 day" })

  /** What several calls do, and the store's logs. */
  const callsOf = (
    port: number,
    calls: (throttle: Throttle.Throttle) => Effect.Effect<unknown, unknown>,
    options: Partial<RedisThrottle.Options> = {}
  ) =>
    Effect.gen(function*() {
      const { layer, messages } = logging()
      const exits = yield* Effect.flatMap(
        processOn(port, bucket, options),
        (throttle) => Effect.forEach([1, 2, 3, 4, 5], () => Effect.exit(calls(throttle)))
      ).pipe(Effect.provide(layer))
      return { exits, messages }
    })

  const started = (throttle: Throttle.Throttle) =>
    Effect.map(throttle.withPermitsIfAvailable(Effect.void, 1), Option.isSome)

  for (
    const [what, acl, logs] of [
      ["SCRIPT", ["-script"], []],
      ["SCRIPT and EVALSHA", ["-script", "-evalsha"], ["throttle.store.eval"]]
    ] as const
  ) {
    it.live(`${what}: works by EVAL`, () =>
      Effect.gen(function*() {
        const { address: { port } } = yield* serverFor("~throttle:*", "&throttle:*", "+@all", ...acl)
        const { exits, messages } = yield* callsOf(port, started)
        assert.deepStrictEqual(exits, [true, true, true, false, false].map((ran) => Exit.succeed(ran)))
        assert.deepStrictEqual(messages, [...logs])
        // The script itself is sent once, unless it has to be sent each time.
        const calls = /cmdstat_eval:calls=(\d+)/.exec((yield* admin(port, "INFO", "commandstats")) as string)
        assert.strictEqual(Number(calls?.[1]), logs.length > 0 ? 5 : 1)
      }).pipe(Effect.scoped))
  }

  it.live("EVALSHA from some time on: works by EVAL from then on", () =>
    Effect.gen(function*() {
      const { address: { port } } = yield* serverFor("~throttle:*", "&throttle:*", "+@all")
      const { layer, messages } = logging()
      yield* Effect.gen(function*() {
        const throttle = yield* processOn(port, Throttle.rate({ limit: 1_000, burst: 100 }))
        yield* throttle.wait()
        yield* admin(port, "ACL", "SETUSER", "app", "-evalsha")
        for (let i = 0; i < 3; i++) yield* throttle.wait()
      }).pipe(Effect.scoped, Effect.provide(layer))
      assert.deepStrictEqual(messages, ["throttle.store.eval"])
    }).pipe(Effect.scoped), 20_000)

  it.live("to write for a moment, as a replica does: no permit is lost", () =>
    Effect.gen(function*() {
      const { address: { port } } = yield* ownServer()
      const policy = Throttle.all([
        Throttle.window({ limit: 1_000, per: "100 millis" }),
        Throttle.concurrency({ limit: 2 })
      ])
      const throttle = yield* processOn(port, policy, {}, {})
      // While any permit is held, the count is not begun anew.
      yield* throttle.takeScoped()
      const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })
      const held = yield* fork(throttle.withPermit(Effect.sleep("200 millis")))
      yield* Effect.sleep("50 millis")
      const next = yield* fork(Effect.exit(throttle.withPermit(Effect.void)))
      yield* Effect.sleep("50 millis")
      yield* admin(port, "REPLICAOF", "127.0.0.1", "1")
      yield* Effect.exit(Fiber.join(held))
      yield* Effect.sleep("50 millis")
      yield* admin(port, "REPLICAOF", "NO", "ONE")
      yield* Fiber.join(next)
      const other = yield* processOn(port, policy, {}, {})
      assert.isTrue(Option.isSome(yield* Effect.timeoutOption(other.takeScoped(), "3 seconds")))
      assert.isTrue(Option.isNone(yield* other.withPermitsIfAvailable(Effect.void, 1)))
    }).pipe(Effect.scoped, Effect.provide(Logger.layer([]))), 20_000)

  it.live("SCRIPT, by its configuration: works all the same, with all operations", () =>
    Effect.gen(function*() {
      const { address: { port } } = yield* ownServer("--rename-command", "SCRIPT", "")
      const throttle = yield* processOn(port, Throttle.concurrency({ limit: 1 }), { leaseTtl: "1500 millis" }, {})
      yield* throttle.pause("10 millis")
      yield* throttle.withPermit(Effect.sleep("600 millis"))
    }).pipe(Effect.scoped, quiet))

  for (
    const [what, acl] of [
      ["all scripts", ["-@scripting"]],
      ["a command that a script needs", ["-set"]]
    ] as const
  ) {
    for (const onStoreError of ["fail", "allow"] as const) {
      it.live(`${what}: an error is logged once, and the breaker opens, with onStoreError "${onStoreError}"`, () =>
        Effect.gen(function*() {
          const { address: { port } } = yield* serverFor("~throttle:*", "&throttle:*", "+@all", ...acl)
          const { exits, messages } = yield* callsOf(port, started, { onStoreError })
          if (onStoreError === "allow") assert.isTrue(exits.every(Exit.isSuccess))
          else {
            const outcomes = exits.map((exit) => {
              const error = Option.getOrThrow(Exit.findErrorOption(exit)) as ThrottleError
              return error.reason._tag === "StoreError" ? error.reason.outcome : error.reason._tag
            })
            assert.deepStrictEqual(outcomes, ["unavailable", "unavailable", "unavailable", "open", "open"])
          }
          assert.deepStrictEqual(messages, ["throttle.store.unusable", "throttle.store.failed", "throttle.store.open"])
        }).pipe(Effect.scoped))
    }
  }

  for (
    const [what, prepare, acl] of [
      ["a key that holds something else", ["HSET", "throttle:{shared}", "a", "b"], ["~throttle:*"]],
      ["a key that the user may not use", ["PING"], ["~other:*"]]
    ] as const
  ) {
    it.live(`${what}: an error is logged once, although onStoreError "allow" lets all calls start`, () =>
      Effect.gen(function*() {
        const { address: { port } } = yield* serverFor("&*", "+@all", ...acl)
        const [command, ...args] = prepare
        yield* admin(port, command, ...args)
        const { exits, messages } = yield* callsOf(port, started, { onStoreError: "allow" })
        assert.isTrue(exits.every(Exit.isSuccess))
        assert.deepStrictEqual(messages, ["throttle.store.refused"])
      }).pipe(Effect.scoped))
  }
})
