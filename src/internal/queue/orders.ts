/**
 * The list of orders.
 */
import * as List from "../list.ts"
import type { Order } from "../plan.ts"
import { fair } from "./fair.ts"
import { fifo } from "./fifo.ts"
import { priority } from "./priority.ts"
import type { Queue, Queued } from "./queue.ts"

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

/**
 * Continues with the waiting calls under another plan, whose demands they have already. Another order begins with the
 * calls by arrival, and knows nothing of the past.
 */
export const continued = <W extends Queued & List.Node<W>>(
  queue: Queue<W>,
  former: Order,
  order: Order,
  byArrival: List.List<W>,
  now: () => number
): Queue<W> => {
  if (order.kind === former.kind && order.ageing === former.ageing) {
    queue.ranking?.replanned()
    return queue
  }
  return restarted(order, byArrival, now)
}

/** Makes the queue of the waiting calls. It knows nothing of the past. */
export const restarted = <W extends Queued & List.Node<W>>(
  order: Order,
  byArrival: List.List<W>,
  now: () => number
): Queue<W> => {
  const next = make(order, byArrival, now)
  for (const waiter of List.values(byArrival)) {
    waiter.place = undefined
    next.push(waiter)
  }
  return next
}
