/**
 * The order in which waiting calls start.
 *
 * A limiter keeps its waiters in a list by arrival. The queue chooses the head: the only one that may start.
 */
export interface Queue<W> {
  /** The waiter that starts next; undefined if no call waits. */
  readonly peek: () => W | undefined
  /** Adds a call that begins to wait. */
  readonly push: (waiter: W) => void
  /** Removes a waiter that started (`hasStarted`), was rejected or was interrupted. */
  readonly remove: (waiter: W, hasStarted: boolean) => void
}
