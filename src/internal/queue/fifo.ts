/**
 * The order of arrival.
 */
import type * as List from "../list.ts"
import type { Queue } from "./queue.ts"

/**
 * First come, first served: the head is the waiter that arrived first. The limiter's list of waiters has that order, so
 * this queue keeps nothing, and each operation is O(1).
 */
export const fifo = <W extends List.Node<W>>(byArrival: List.List<W>): Queue<W> => ({
  peek: () => byArrival.first,
  push: () => {},
  remove: () => {},
  ranking: undefined
})
