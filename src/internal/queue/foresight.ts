/**
 * Foresees the fair order: which waiting calls start before a newcomer, if no other call comes.
 */
import type { Demand } from "../demand.ts"
import * as Heap from "../heap.ts"
import * as Account from "./account.ts"
import { isBefore, type Ranked, rankOf } from "./priority.ts"
import type { Newcomer, Queued } from "./queue.ts"

export interface Basis<W> {
  readonly virtual: number
  readonly ageing: number
  readonly costOf: (demand: Demand, account: Account.Account<W> | undefined) => number
}

/** A caller in the course of what is foreseen. */
interface Foreseen<W> {
  had: number
  came: number
  readonly account: Account.Account<W> | undefined
  /** Its calls that have not started, the next one last. */
  readonly calls: Array<Call<W>>
  rank: number
  cost: number
}

/** A waiting call, or the newcomer (`waiter` is undefined). */
interface Call<W> extends Ranked<W | undefined> {
  readonly weight: number
}

/** Returns these calls in order. Runs that last longer than foreseen are not known in advance. */
export function* before<W extends Queued>(
  waiting: ReadonlyArray<Account.Account<W>>,
  own: Account.Account<W> | undefined,
  newcomer: Newcomer,
  { ageing, costOf, virtual }: Basis<W>
): Generator<W> {
  const order = Heap.make<Foreseen<W>>((a, b) =>
    a.rank < b.rank || (a.rank === b.rank && a.calls.at(-1)!.arrived < b.calls.at(-1)!.arrived)
  )
  const added: Call<W> = {
    waiter: undefined,
    rank: rankOf(newcomer, ageing),
    arrived: Infinity,
    weight: newcomer.caller.weight
  }
  /** `known`: what its next call costs, if that is decided. */
  const place = (node: Heap.Node<Foreseen<W>>, known?: number): void => {
    const { value: caller } = node
    const { waiter, weight } = caller.calls.at(-1)!
    caller.cost = known ?? costOf((waiter ?? newcomer).demand, caller.account)
    caller.rank = Account.rankOf(caller, { cost: caller.cost, weight })
    Heap.place(order, node)
  }
  const add = (account: Account.Account<W> | undefined, came: number, all: ReadonlyArray<Call<W>>): void => {
    const calls = all.toSorted((a, b) => isBefore(a, b) ? 1 : -1)
    place(
      Heap.node({ had: account?.had ?? -Infinity, came, account, calls, rank: 0, cost: 0 }),
      calls.at(-1) === added ? undefined : account!.next!.cost
    )
  }
  for (const account of waiting) {
    const calls = account.calls.nodes.map(({ value }) => value)
    add(account, account.came, account === own ? [...calls, added] : calls)
  }
  if (own?.next === undefined) add(own, virtual, [added])
  for (let node = order.nodes[0]; node !== undefined; node = order.nodes[0]) {
    const { value: caller } = node
    const { waiter, weight } = caller.calls.pop()!
    if (waiter === undefined) return
    yield waiter
    caller.had = caller.rank + caller.cost / weight
    if (caller.calls.length > 0) place(node)
    else Heap.remove(order, node)
  }
}
