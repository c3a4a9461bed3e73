/**
 * A doubly linked list whose links are in its members: adding at the end and removing from anywhere take O(1).
 *
 * (A `Set` keeps the order too, but finding its first member walks over deleted ones.)
 */
export interface List<N extends Node<N>> {
  first: N | undefined
  last: N | undefined
  size: number
}

/** The links of a member. */
export interface Node<N> {
  prev: N | undefined
  next: N | undefined
}

export const make = <N extends Node<N>>(): List<N> => ({ first: undefined, last: undefined, size: 0 })

/** Adds a member at the end. */
export const add = <N extends Node<N>>(list: List<N>, node: N): void => {
  node.prev = list.last
  if (list.last === undefined) list.first = node
  else list.last.next = node
  list.last = node
  list.size++
}

/** Removes a member. */
export const remove = <N extends Node<N>>(list: List<N>, node: N): void => {
  if (node.prev === undefined) list.first = node.next
  else node.prev.next = node.next
  if (node.next === undefined) list.last = node.prev
  else node.next.prev = node.prev
  node.prev = undefined
  node.next = undefined
  list.size--
}

/** Iterates over the members from first to last. */
export function* values<N extends Node<N>>(list: List<N>): Generator<N> {
  for (let node = list.first; node !== undefined; node = node.next) yield node
}
