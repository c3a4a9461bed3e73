/**
 * The waiting line: first come, first served.
 *
 * A doubly linked list through its members, so that entering, leaving from anywhere
 * (an interrupted waiter) and asking who is first take one step each, however long
 * the line is. (A `Set` keeps order too, but finding its first member walks over
 * those deleted before it.)
 */
export interface Line<W extends Place<W>> {
  head: W | undefined
  tail: W | undefined
  size: number
}

/** What a member of a line carries. */
export interface Place<W> {
  ahead: W | undefined
  behind: W | undefined
}

export const make = <W extends Place<W>>(): Line<W> => ({ head: undefined, tail: undefined, size: 0 })

/** Puts a newcomer at the end. */
export const enter = <W extends Place<W>>(line: Line<W>, waiter: W): void => {
  waiter.ahead = line.tail
  if (line.tail === undefined) line.head = waiter
  else line.tail.behind = waiter
  line.tail = waiter
  line.size++
}

/** Takes out someone who is in the line, wherever they stand. */
export const leave = <W extends Place<W>>(line: Line<W>, waiter: W): void => {
  if (waiter.ahead === undefined) line.head = waiter.behind
  else waiter.ahead.behind = waiter.behind
  if (waiter.behind === undefined) line.tail = waiter.ahead
  else waiter.behind.ahead = waiter.ahead
  waiter.ahead = undefined
  waiter.behind = undefined
  line.size--
}

/** Those in the line, first come first. */
export function* members<W extends Place<W>>(line: Line<W>): Generator<W> {
  for (let waiter = line.head; waiter !== undefined; waiter = waiter.behind) yield waiter
}
