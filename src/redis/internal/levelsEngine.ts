/**
 * The operations of several throttles on a store as levels: which of them can be levels of one call, and which limiters they
 * have.
 */
import * as Formatter from "effect/Formatter"
import type * as Engine from "../../internal/engine.ts"
import * as Engines from "../../internal/levels/engine.ts"
import type { ThrottleStore } from "../ThrottleStore.ts"
import { Leased, type LeasedPermit } from "./backend.ts"
import { underLease } from "./leases.ts"
import * as Levels from "./levels.ts"
import type { Limiter } from "./limiter.ts"
import { slotOf } from "./slots.ts"

/** Where a throttle is in a store, and its limiter in this process. */
export interface Shared {
  readonly store: ThrottleStore
  readonly key: string
  /** Keeps the limiter until it is closed. */
  readonly open: () => Engine.Opened<Limiter>
}

/** The engine of a throttle on a store, which can be a level. */
export interface SharedEngine extends Engine.Engine {
  readonly shared: Shared
}

/** An engine as one that can be a level. */
export const shared = (engine: Engine.Engine, shared: Shared): SharedEngine => {
  return { ...engine, shared, levels: engineOf }
}

const { where } = Engines

const invalid = (message: string): RangeError => new RangeError(`${where}: ${message}`)

const read = (engines: ReadonlyArray<Engine.Engine>): ReadonlyArray<SharedEngine> => {
  const all = engines.map((engine, i) => {
    if ("shared" in engine) return engine as SharedEngine
    throw invalid(
      `"throttles[${i}]" must be on the store of the other levels, since all are charged in one step, received a throttle of ` +
        "this process"
    )
  })
  const [first] = all
  all.forEach(({ name, shared: { key, store } }, i) => {
    const former = first!.shared
    const [one, other] = [former.key, key].map((text) => Formatter.format(text))
    if (store !== former.store) {
      throw invalid(
        `all levels must use one connection to the store, received ${Formatter.format(first!.name)} and ${
          Formatter.format(name)
        } on two`
      )
    }
    if (slotOf(key) !== slotOf(former.key)) {
      throw invalid(
        `all levels must be in one hash slot of the store, received the keys ${one} and ${other}; ` +
          "begin the keys with one hash tag, such as \"{acme}:ada\" and \"{acme}\""
      )
    }
    if (all.findIndex((engine) => engine.shared.key === key) < i) {
      throw invalid(`each level must be another throttle, received the key ${other} twice`)
    }
  })
  if (first!.shared.store.decideTogether === undefined) {
    throw invalid("this store cannot decide about several keys at once")
  }
  return all
}

/** Throws a RangeError for what are not different throttles in one hash slot of one store. */
const engineOf = (engines: ReadonlyArray<Engine.Engine>): Engine.Engine => {
  const levels = read(engines)
  const engine = Engines.engineOf(levels.map((one) => ({ ...one, open: one.shared.open })), Levels.make)
  return {
    ...engine,
    use: (use, cost) =>
      engine.use((permit: LeasedPermit) => {
        const leases = permit[Leased]
        return leases === undefined ? use(permit) : underLease(leases, use(permit))
      }, cost)
  }
}
