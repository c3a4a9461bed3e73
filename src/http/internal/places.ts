/**
 * A queue by place, the lowest first: a binary heap whose members know where they are, so that one can leave from anywhere.
 */

export interface Placed {
  /** No two members have the same. */
  place: number
  /** Where it is in the heap; -1 while it is in none. */
  index: number
}

export type Places<A extends Placed> = Array<A>

export const push = <A extends Placed>(heap: Places<A>, member: A): void => {
  member.index = heap.push(member) - 1
  rise(heap, member)
}

export const remove = <A extends Placed>(heap: Places<A>, member: A): void => {
  const { index } = member
  const last = heap.pop()!
  member.index = -1
  if (last === member) return
  heap[index] = last
  last.index = index
  rise(heap, last)
  sink(heap, last)
}

const put = <A extends Placed>(heap: Places<A>, member: A, index: number): void => {
  heap[index] = member
  member.index = index
}

const rise = <A extends Placed>(heap: Places<A>, member: A): void => {
  while (member.index > 0) {
    const parent = heap[(member.index - 1) >> 1]!
    if (parent.place < member.place) return
    const { index } = parent
    put(heap, parent, member.index)
    put(heap, member, index)
  }
}

const sink = <A extends Placed>(heap: Places<A>, member: A): void => {
  for (;;) {
    const left = 2 * member.index + 1
    let child = heap[left]
    if (child === undefined) return
    const right = heap[left + 1]
    if (right !== undefined && right.place < child.place) child = right
    if (member.place < child.place) return
    const { index } = child
    put(heap, child, member.index)
    put(heap, member, index)
  }
}
