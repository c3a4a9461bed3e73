/**
 * The account of a caller in the fair order: what its calls have taken, divided by its weight, in nanoseconds of the
 * whole throttle.
 *
 * Nanoseconds of running calls are read from a clock that stands still while no call waits: what runs then keeps nobody
 * waiting.
 */
import type { Demand } from "../demand.ts"
import * as Heap from "../heap.ts"
import { isBefore, type Ranked } from "./priority.ts"

export interface Account<W> {
  readonly key: string
  /** What it has had. */
  had: number
  /** The virtual time when it began to wait. It ranks no earlier, so what it did not use before is no credit. */
  came: number
  /**
   * What it would have had if it had had nothing before its present wait. A refund for an earlier call lowers `had` no
   * further: otherwise a caller could hoard by settling late.
   */
  floor: number
  /** Counts its waits, so that calls of an earlier one are told apart. */
  wait: number
  /** The smoothed run of its calls, in nanoseconds; undefined before the first has ended. */
  run: number | undefined
  /** Its waiting calls. */
  readonly calls: Heap.Heap<Entry<W>>
  /** The call that would be its next to start. */
  next: Entry<W> | undefined
  rank: number
  /** The number of its started calls that may still be charged or refunded. */
  open: number
  /** What accrues to `had`, and to `floor`, in each nanosecond, since calls run longer than they have paid for. */
  accrual: number
  floorAccrual: number
  /** The instant of the running clock up to which that has been added. */
  accruedAt: number
  /** Its place among the callers that wait, and among those that only owe. */
  readonly waiting: Heap.Node<Account<W>>
  readonly owing: Heap.Node<Account<W>>
}

/** A call in an account. */
export interface Entry<W> extends Ranked<W> {
  readonly account: Account<W>
  readonly weight: number
  /** Its place among the waiting calls of its caller. */
  readonly own: Heap.Node<Entry<W>>
  /** What it costs if it starts, and the part of that which is for its foreseen run: decided when it becomes next. */
  cost: number
  held: number
  /**
   * - waiting: it has cost nothing.
   * - paid: what it was charged covers its run so far.
   * - overrun: it runs longer, and is charged as it runs.
   * - closed: nothing is charged or refunded any more.
   */
  state: "waiting" | "paid" | "overrun" | "closed"
  /** The wait of its caller in which it started. */
  wait: number
  /** What it was charged. In the state "overrun" it is charged for its run instead. */
  charged: number
  /** The part of its cost that does not depend on its run. */
  timing: number
  /** The largest share of the permits of a part that it holds. */
  share: number
  /** When it started, and until when it has paid, on the running clock. */
  startedAt: number
  paidUntil: number
  /** Its place among the calls that have paid for their run so far. */
  readonly running: Heap.Node<Entry<W>>
}

type Mutable<A> = { -readonly [K in keyof A]: A[K] }

/** Makes the account of a caller that has had nothing. */
export const make = <W>(key: string, now: number): Account<W> => {
  const account: Mutable<Account<W>> = {
    key,
    had: -Infinity,
    came: 0,
    floor: 0,
    wait: 0,
    run: undefined,
    calls: Heap.make<Entry<W>>(isBefore),
    next: undefined,
    rank: 0,
    open: 0,
    accrual: 0,
    floorAccrual: 0,
    accruedAt: now,
    waiting: undefined as never,
    owing: undefined as never
  }
  account.waiting = Heap.node(account)
  account.owing = Heap.node(account)
  return account
}

/** Makes the entry of a waiting call. */
export const entry = <W>(account: Account<W>, waiter: W, weight: number, rank: number, arrived: number): Entry<W> => {
  const entry: Mutable<Entry<W>> = {
    waiter,
    account,
    weight,
    rank,
    arrived,
    cost: 0,
    held: 0,
    state: "waiting",
    wait: 0,
    charged: 0,
    timing: 0,
    share: 0,
    startedAt: 0,
    paidUntil: Infinity,
    own: undefined as never,
    running: undefined as never
  }
  entry.own = Heap.node(entry)
  entry.running = Heap.node(entry)
  return entry
}

/** The nanoseconds of the whole throttle that a demand takes of the time-based part that it uses most. */
export const timingOf = ({ meters, plan }: Demand): number => {
  let most = 0
  for (let i = 0; i < meters.length; i++) {
    const { permits, per } = plan.meters[i]!.pace
    most = Math.max(most, meters[i]! * per / permits)
  }
  return most
}

/** The largest share of the permits of a part that a demand takes. */
export const shareOf = ({ plan, pools }: Demand): number => {
  let most = 0
  for (let i = 0; i < pools.length; i++) most = Math.max(most, pools[i]! / plan.pools[i]!.limit.initial)
  return most
}

/** The rank of a caller that comes at `came`: a quarter of its cost later, so that light calls go before heavy ones. */
const entryRank = (came: number, cost: number, weight: number): number => came + cost / (4 * weight)

/** The rank of a caller whose next call has this cost and weight. */
export const rankOf = (
  { came, had }: { readonly came: number; readonly had: number },
  { cost, weight }: { readonly cost: number; readonly weight: number }
): number => Math.max(had, entryRank(came, cost, weight))

/** Whether a caller is before another: by rank, and then by the arrival of its next call. */
export const isNext = (a: Account<any>, b: Account<any>): boolean =>
  a.rank < b.rank || (a.rank === b.rank && a.next!.arrived < b.next!.arrived)

/** What a caller will have had at an instant, if it goes on as it does. */
export const hadAt = ({ accrual, accruedAt, had }: Account<any>, at: number): number => had + accrual * (at - accruedAt)

/**
 * The instant from which on a waiting caller ranks after another, if both go on as they do; Infinity if it never does. It
 * is by so much later that rounding cannot hide the change.
 */
export const passesAt = (account: Account<any>, other: Account<any>): number => {
  const { accrual, accruedAt, had } = account
  const after = (rank: number, accrual: number) =>
    accrual > 0 ? accruedAt + (rank + 1 + rank * 1e-12 - had) / accrual : Infinity
  const at = after(other.rank, accrual)
  return at === Infinity || hadAt(other, at) <= other.rank
    ? at
    : after(hadAt(other, accruedAt), accrual - other.accrual)
}

/** Adds what has accrued until `now`. To be called before any other change. */
export const accrue = (account: Account<any>, now: number): void => {
  const elapsed = now - account.accruedAt
  account.had += account.accrual * elapsed
  account.floor += account.floorAccrual * elapsed
  account.accruedAt = now
}

const changeAccrual = <W>({ account, share, wait, weight }: Entry<W>, sign: 1 | -1): void => {
  account.accrual += sign * share / weight
  if (wait === account.wait) account.floorAccrual += sign * share / weight
}

/** Begins a wait at the virtual time `v`. */
export const beginWait = <W>(account: Account<W>, v: number): void => {
  account.wait++
  account.came = v
  account.floor = v
  account.floorAccrual = 0
}

/** Charges the start of a waiting call at this rank. */
export const start = <W>(entry: Entry<W>, rank: number, demand: Demand, now: number): void => {
  const { account, cost, weight } = entry
  account.had = rank + cost / weight
  account.floor = Math.max(account.floor, entryRank(account.came, cost, weight)) + cost / weight
  account.open++
  entry.state = "paid"
  entry.wait = account.wait
  entry.timing = timingOf(demand)
  entry.share = shareOf(demand)
  entry.startedAt = now
  pay(entry, cost)
}

const pay = <W>(entry: Entry<W>, cost: number): void => {
  entry.charged = cost
  entry.paidUntil = entry.share > 0 ? entry.startedAt + cost / entry.share : Infinity
}

/** Charges a started call more, or refunds it (a negative amount). */
const correct = <W>({ account, wait, weight }: Entry<W>, nanos: number): void => {
  const amount = nanos / weight
  if (wait === account.wait) {
    account.floor += amount
    account.had += amount
  } else if (amount > 0 || account.next === undefined) account.had += amount
  else account.had = Math.max(account.had + amount, Math.min(account.had, account.floor))
}

/** What the run of a started call costs so far. */
const ranFor = <W>({ share, startedAt }: Entry<W>, now: number): number => share * (now - startedAt)

/** Changes the cost of a started call: it is charged this, or for its run if that has cost more already. */
export const recharge = <W>(entry: Entry<W>, cost: number, now: number): void => {
  const ran = ranFor(entry, now)
  correct(entry, Math.max(cost, ran) - (entry.state === "overrun" ? ran : entry.charged))
  pay(entry, cost)
  setOverrun(entry, ran > cost)
}

/** Begins or ends to charge a started call as it runs. */
export const setOverrun = <W>(entry: Entry<W>, isOverrun: boolean): void => {
  if (isOverrun === (entry.state === "overrun")) return
  entry.state = isOverrun ? "overrun" : "paid"
  changeAccrual(entry, isOverrun ? 1 : -1)
}

/** Closes a started call that has cost this in all. */
export const close = <W>(entry: Entry<W>, cost: number, now: number): void => {
  correct(entry, cost - (entry.state === "overrun" ? ranFor(entry, now) : entry.charged))
  setOverrun(entry, false)
  entry.state = "closed"
  entry.account.open--
}

/** Returns a smoothed run: the first one, and then an eighth of the difference for each further one. */
export const smoothed = (run: number | undefined, next: number): number =>
  run === undefined ? next : run + (next - run) / 8
