/**
 * The order of priorities.
 */
import * as Heap from "../heap.ts"
import type { Newcomer, Queue, Queued } from "./queue.ts"

/** The place of a call among others. */
export interface Ranked<out W> {
  readonly waiter: W
  readonly rank: number
  /** Orders calls of equal rank by arrival. */
  readonly arrived: number
}

/**
 * The rank of a call: its arrival, earlier by `ageing` for each step of its priority. The least rank is first, so a call
 * passes another only if it arrived less than the difference of their priorities, times `ageing`, after it. Hence no
 * call starves.
 */
export const rankOf = ({ arrival, caller: { priority } }: Newcomer, ageing: number): number =>
  priority === 0 ? arrival : arrival - priority * ageing

export const isBefore = (a: Ranked<unknown>, b: Ranked<unknown>): boolean =>
  a.rank < b.rank || (a.rank === b.rank && a.arrived < b.arrived)

/** Calls with a higher priority first. `ageing`: the nanoseconds of waiting that one step of priority is worth. */
export const priority = <W extends Queued>(ageing: number): Queue<W> => {
  const heap = Heap.make<Ranked<W>>(isBefore)
  let arrivals = 0
  return {
    peek: () => Heap.first(heap)?.waiter,
    push: (waiter) => {
      const node = Heap.node({ waiter, rank: rankOf(waiter, ageing), arrived: arrivals++ })
      waiter.place = node
      Heap.place(heap, node)
    },
    remove: (waiter) => {
      Heap.remove(heap, waiter.place as Heap.Node<Ranked<W>>)
      waiter.place = undefined
    },
    ranking: {
      isFirst: (newcomer) => heap.nodes.length === 0 || rankOf(newcomer, ageing) < Heap.first(heap)!.rank,
      before: (newcomer) => {
        const rank = rankOf(newcomer, ageing)
        return heap.nodes.map(({ value }) => value).filter((one) => one.rank <= rank).toSorted((a, b) =>
          isBefore(a, b) ? -1 : 1
        ).map(({ waiter }) => waiter)
      },
      refresh: () => {},
      changesAt: () => Infinity,
      ended: () => {},
      settled: () => {},
      cancelled: () => {},
      replanned: () => {},
      ahead: () => [],
      isSettled: () => true
    }
  }
}
