/**
 * The list of orders.
 */
import type * as List from "../list.ts"
import { fair } from "./fair.ts"
import { fifo } from "./fifo.ts"
import { priority } from "./priority.ts"
import type { Queue, Queued } from "./queue.ts"

/** An order as plain data. `ageing`: the nanoseconds of waiting that one step of priority is worth. */
export interface Order {
  readonly kind: "arrival" | "priority" | "fair"
  readonly ageing: number
}

export const arrival: Order = { kind: "arrival", ageing: 0 }

export const isSame = (a: Order, b: Order): boolean => a.kind === b.kind && a.ageing === b.ageing

/** Makes the queue of an order. `byArrival`: the list of all waiters; `now`: reads the clock in nanoseconds. */
export const make = <W extends Queued & List.Node<W>>(
  { ageing, kind }: Order,
  byArrival: List.List<W>,
  now: () => number
): Queue<W> => {
  switch (kind) {
    case "arrival":
      return fifo(byArrival)
    case "priority":
      return priority(ageing)
    case "fair":
      return fair(now, ageing)
  }
}
