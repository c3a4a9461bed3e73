/**
 * Plays a program of calls by the rules of the orders: an event at a time, with the slow model of the fair order, and
 * everything decided anew at each event. Meters and permits are those of the library.
 */
import { Throttle, type ThrottleError } from "effect-throttle"
import * as Budget from "../../src/internal/budget.ts"
import * as Commit from "../../src/internal/commit.ts"
import { update } from "../../src/internal/control.ts"
import * as Demand from "../../src/internal/demand.ts"
import type { Grant, Settlement } from "../../src/internal/grant.ts"
import type { Limiter } from "../../src/internal/limiter.ts"
import * as List from "../../src/internal/list.ts"
import * as Plan from "../../src/internal/plan.ts"
import * as Time from "../../src/internal/time.ts"
import { FairModel } from "./fair-model.ts"
import { limiterOf, throttleIn } from "./kit.ts"
import * as Simulator from "./simulator.ts"

/** A call of a program; instants in milliseconds. */
export interface OrderCall {
  readonly at: number
  readonly runs: number
  readonly cost: Throttle.Cost
  readonly caller: Throttle.Caller
  readonly use: "withPermits" | "ifAvailable" | "settles" | "cancels"
  /** The actual cost, and when it is settled or cancelled after the start. */
  readonly actual: number
  readonly settlesAfter: number
  readonly interruptAt: number | undefined
}

export interface OrderTurn {
  readonly at: number
  readonly what: "pause" | "resume" | "update"
  readonly millis: number
  /** The policy of an update, as data. */
  readonly policy: Throttle.PolicyData
}

export interface OrderProgram {
  readonly policy: Throttle.PolicyData
  readonly calls: ReadonlyArray<OrderCall>
  readonly turns: ReadonlyArray<OrderTurn>
}

/** The actual cost, in the first unit of the estimated one. */
export const actualOf = ({ actual, cost }: OrderCall): Throttle.Cost =>
  typeof cost === "number" ? actual : { [Object.keys(cost)[0]!]: actual }

/** What became of a call. */
export interface OrderOutcome {
  /** In milliseconds; undefined if it did not start. */
  start: number | undefined
  end: "done" | "interrupted" | "none" | ThrottleError["reason"]["_tag"] | "hangs"
}

/** The order of waiting calls, slowly. */
interface Order {
  readonly advance: (now: number) => void
  readonly arrive: (i: number) => void
  readonly isFirst: (i: number) => boolean
  readonly head: () => number | undefined
  readonly changesAt: (until: number) => number
  readonly start: (i: number) => void
  readonly leave: (i: number) => void
  readonly end: (i: number) => void
  readonly settle: (i: number, actual: Demand.Demand) => void
  readonly cancel: (i: number) => void
  readonly update: () => void
  readonly margin: () => number
}

const timingOf = ({ meters, plan }: Demand.Demand): number =>
  Math.max(0, ...meters.map((amount, i) => amount * plan.meters[i]!.pace.per / plan.meters[i]!.pace.permits))

const shareOf = ({ plan, pools }: Demand.Demand): number =>
  Math.max(0, ...pools.map((amount, i) => amount / plan.pools[i]!.limit.initial))

/** What a demand takes of the whole throttle, by time and of its permits. */
export const numbersOf = (demand: Demand.Demand) => ({ timing: timingOf(demand), share: shareOf(demand) })

const byRank = (calls: ReadonlyArray<OrderCall>, ageing: number): Order => {
  const waiting: Array<number> = []
  const rank = (i: number) => calls[i]!.at - calls[i]!.caller.priority * ageing
  const head = (among: ReadonlyArray<number>) =>
    among.length === 0 ? undefined : among.reduce((best, i) => rank(i) < rank(best) ? i : best)
  const drop = (i: number) => void waiting.splice(waiting.indexOf(i), 1)
  const ignore = () => {}
  return {
    advance: ignore,
    arrive: (i) => void waiting.push(i),
    isFirst: (i) => head([...waiting, i]) === i,
    head: () => head(waiting),
    changesAt: () => Infinity,
    start: drop,
    leave: drop,
    end: ignore,
    settle: ignore,
    cancel: ignore,
    update: ignore,
    margin: () => Infinity
  }
}

const fairly = (
  calls: ReadonlyArray<OrderCall>,
  ageing: number,
  demandOf: (i: number) => Demand.Demand
): Order => {
  const model = new FairModel(ageing * 1e6)
  const call = (i: number) => ({ ...calls[i]!.caller, id: i, arrival: calls[i]!.at * 1e6, ...numbersOf(demandOf(i)) })
  return {
    advance: (now) => model.advance(now),
    arrive: (i) => model.arrive(call(i)),
    isFirst: (i) => model.isFirst(call(i)),
    head: () => model.head()?.id,
    changesAt: (until) => model.changesAt(until),
    start: (i) => model.start(i, true),
    leave: (i) => model.leave(i),
    end: (i) => model.end(i),
    settle: (i, actual) => model.settle(i, timingOf(actual)),
    cancel: (i) => model.cancel(i),
    update: () => model.update((i) => numbersOf(demandOf(i))),
    margin: () => model.margin()
  }
}

const makeOrder = (
  { kind, ageing }: Plan.Order,
  calls: ReadonlyArray<OrderCall>,
  demandOf: (i: number) => Demand.Demand
): Order =>
  kind === "fair" ? fairly(calls, ageing / 1e6, demandOf) : byRank(calls, kind === "priority" ? ageing / 1e6 : 0)

interface Running {
  readonly grant: Grant
  settlement: Settlement | undefined
}

/**
 * What becomes of the calls of a program.
 *
 * `margin`: how far apart the ranks were that decided.
 */
export const expected = ({ calls, policy, turns }: OrderProgram) => {
  // A throttle that no call uses, for its meters and permits.
  const simulator = Simulator.make()
  const throttle = throttleIn(simulator, Throttle.fromData(policy))
  const limiter: Limiter = limiterOf(throttle)
  // Fixed windows need the difference of the clocks.
  Time.now(limiter.time)
  const outcomes = calls.map((): OrderOutcome => ({ start: undefined, end: "hangs" }))
  const demands = calls.map(({ cost }) => Demand.make(limiter.plan, cost))
  const running = new Map<number, Running>()
  /** By arrival. */
  let waiting: Array<number> = []
  let order = makeOrder(limiter.plan.order, calls, (i) => demands[i]!)
  let pausedUntil = 0
  let margin = Infinity

  const events: Array<{ readonly at: number; readonly action: () => boolean | void }> = []
  /** An action that returns false was no event. */
  const at = (millis: number, action: () => boolean | void) => {
    const nanos = Math.round(millis * 1e6)
    const index = events.findIndex((event) => event.at > nanos)
    events.splice(index < 0 ? events.length : index, 0, { at: nanos, action })
  }
  let now = 0

  const readyAt = (i: number): number => {
    const decision = Budget.decide(limiter, limiter.charged.ref.current, demands[i]!, Math.max(now, pausedUntil))
    return decision._tag === "ReadyAt" ? decision.at : Infinity
  }
  const isReady = (i: number) => readyAt(i) <= now + Budget.tolerance

  const begin = (i: number, fromQueue: boolean) => {
    const { runs, settlesAfter, use } = calls[i]!
    const settles = use === "settles" || use === "cancels"
    const settlement: Settlement | undefined = settles ? { state: "open", tickets: [], semaphores: "none" } : undefined
    const grant: Grant = {
      prev: undefined,
      next: undefined,
      fiber: undefined as never,
      demand: demands[i]!,
      meters: limiter.meters,
      pools: limiter.pools,
      endedBy: "call",
      settlement,
      startedAt: now
    }
    Commit.charge(limiter, demands[i]!, readyAt(i), now, settlement)
    Commit.takePermits(limiter, demands[i]!)
    if (demands[i]!.holdsPermits) List.add(limiter.holders, grant)
    running.set(i, { grant, settlement })
    if (fromQueue) order.start(i)
    outcomes[i]!.start = now / 1e6
    at(now / 1e6 + runs, () => end(i, "done"))
    if (settles) {
      at(now / 1e6 + settlesAfter, () => {
        if (settlement!.state !== "open") return false
        settlement!.state = "settled"
        if (use === "cancels") {
          settlement!.state = "cancelled"
          order.cancel(i)
          Commit.cancel(limiter, grant, now)
          release(i, false)
        } else {
          const settled = Demand.actual(limiter.plan, grant.demand, actualOf(calls[i]!))
          order.settle(i, settled)
          Commit.settle(limiter, grant, settled, now)
        }
        return true
      })
    }
  }

  const release = (i: number, isCharged: boolean) => {
    const { grant, settlement } = running.get(i)!
    running.delete(i)
    if (settlement !== undefined) {
      settlement.state = "closed"
      Commit.close(limiter, grant)
    }
    if (grant.demand.holdsPermits) Commit.release(limiter, grant, isCharged, now)
  }

  const end = (i: number, how: OrderOutcome["end"]): boolean => {
    if (outcomes[i]!.end !== "hangs") return false
    outcomes[i]!.end = how
    if (!running.has(i)) return false
    order.end(i)
    release(i, true)
    return true
  }

  const leave = (i: number, how: OrderOutcome["end"]) => {
    waiting = waiting.filter((one) => one !== i)
    order.leave(i)
    outcomes[i]!.end = how
  }

  /** `isClose`: the head has just changed by time alone, so it ranks next to the former one. */
  const drain = (isClose = false) => {
    if (!isClose) margin = Math.min(margin, order.margin())
    for (let head = order.head(); head !== undefined && isReady(head); head = order.head()) {
      waiting = waiting.filter((i) => i !== head)
      begin(head, true)
      margin = Math.min(margin, order.margin())
    }
  }

  const deadline = (i: number) => Math.round(calls[i]!.at * 1e6) + limiter.plan.timeout

  const expire = () => {
    for (const i of waiting.slice()) {
      if (deadline(i) > now) continue
      leave(i, "TimedOut")
      drain()
    }
  }

  const arrive = (i: number) => {
    const { caller, use } = calls[i]!
    demands[i] = Demand.make(limiter.plan, calls[i]!.cost)
    const { exceeds } = demands[i]!
    if (exceeds === undefined && isReady(i)) {
      if (waiting.length === 0) return begin(i, false)
      if (order.isFirst(i)) {
        order.arrive(i)
        return begin(i, true)
      }
    }
    const { maxQueue, maxQueuePerCaller } = limiter.plan
    const own = waiting.filter((one) => calls[one]!.caller.key === caller.key).length
    const { end } = outcomes[i]!
    outcomes[i]!.end = exceeds !== undefined
      ? "PermitsExceedCapacity"
      : use === "ifAvailable"
      ? "none"
      : waiting.length >= maxQueue || own >= maxQueuePerCaller
      ? "QueueFull"
      : end
    if (outcomes[i]!.end !== end) return
    waiting.push(i)
    order.arrive(i)
  }

  const turn = ({ millis, policy, what }: OrderTurn) => {
    if (what === "pause") pausedUntil = Math.max(pausedUntil, now + Math.round(millis * 1e6))
    else if (what === "resume") pausedUntil = Math.min(pausedUntil, now)
    else {
      const former = limiter.plan.order
      const plan = Plan.make(policy)
      simulator.at(now / 1e6, () => update(limiter, plan))
      simulator.run()
      for (const i of waiting) demands[i] = Demand.forPlan(limiter.plan, demands[i]!)
      if (former.kind === plan.order.kind && former.ageing === plan.order.ageing) order.update()
      else {
        order = makeOrder(plan.order, calls, (i) => demands[i]!)
        order.advance(now)
        for (const i of waiting) order.arrive(i)
      }
      for (const i of waiting.slice()) if (demands[i]!.exceeds !== undefined) leave(i, "PermitsExceedCapacity")
    }
  }

  calls.forEach((call, i) => {
    at(call.at, () => arrive(i))
    if (call.interruptAt !== undefined) {
      at(Math.max(call.at, call.interruptAt), () => {
        if (!waiting.includes(i)) return end(i, "interrupted")
        leave(i, "interrupted")
        return true
      })
    }
  })
  for (const one of turns) at(one.at, () => turn(one))

  for (;;) {
    const head = order.head()
    const wake = head === undefined
      ? Infinity
      : Math.min(readyAt(head), ...waiting.map(deadline))
    const event = events[0]
    const next = Math.min(event?.at ?? Infinity, wake)
    const change = order.changesAt(next)
    if (next === Infinity && change === Infinity) break
    now = Math.max(now, Math.min(next, change))
    order.advance(now)
    if (event !== undefined && event.at <= now) {
      events.shift()
      if (event.action() !== false) drain()
    } else drain(change < next)
    if (events[0] === undefined || events[0].at > now) expire()
  }
  return { outcomes, margin }
}
