/**
 * A binary heap whose members know their place: adding, moving and removing any of them take O(log n).
 */
export interface Heap<in out A> {
  readonly nodes: Array<Node<A>>
  readonly isBefore: (a: A, b: A) => boolean
}

/** A place in a heap. `index` is -1 while it is in none. */
export interface Node<out A> {
  readonly value: A
  index: number
}

export const make = <A>(isBefore: (a: A, b: A) => boolean): Heap<A> => ({ nodes: [], isBefore })

export const node = <A>(value: A): Node<A> => ({ value, index: -1 })

/** The member before all others. */
export const first = <A>({ nodes }: Heap<A>): A | undefined => nodes[0]?.value

/** The first member of all but one. */
export const firstBeside = <A>({ isBefore, nodes }: Heap<A>, { index }: Node<A>): A | undefined => {
  if (index !== 0) return nodes[0]?.value
  const left = nodes[1]?.value
  const right = nodes[2]?.value
  return left !== undefined && right !== undefined && isBefore(right, left) ? right : left
}

/** Visits members from the first on; those after one, only if `visit` returns true for it. */
export const descend = <A>(heap: Heap<A>, visit: (member: A) => boolean, index = 0): void => {
  const node = heap.nodes[index]
  if (node === undefined || !visit(node.value)) return
  descend(heap, visit, 2 * index + 1)
  descend(heap, visit, 2 * index + 2)
}

/** Adds a node, or moves it to its place after a change. */
export const place = <A>(heap: Heap<A>, node: Node<A>): void => {
  if (node.index < 0) node.index = heap.nodes.push(node) - 1
  sink(heap, node, rise(heap, node, node.index))
}

/** Removes a node, if it is in the heap. */
export const remove = <A>(heap: Heap<A>, node: Node<A>): void => {
  const { index } = node
  if (index < 0) return
  node.index = -1
  const last = heap.nodes.pop()!
  if (last === node) return
  last.index = index
  sink(heap, last, rise(heap, last, index))
}

/** Moves a node towards the top, and returns its index. */
const rise = <A>({ isBefore, nodes }: Heap<A>, node: Node<A>, index: number): number => {
  while (index > 0) {
    const above = (index - 1) >> 1
    const parent = nodes[above]!
    if (!isBefore(node.value, parent.value)) break
    nodes[index] = parent
    parent.index = index
    index = above
  }
  return index
}

/** Moves a node away from the top, and puts it there. */
const sink = <A>({ isBefore, nodes }: Heap<A>, node: Node<A>, index: number): void => {
  for (;;) {
    let below = 2 * index + 1
    if (below >= nodes.length) break
    if (below + 1 < nodes.length && isBefore(nodes[below + 1]!.value, nodes[below]!.value)) below++
    const child = nodes[below]!
    if (!isBefore(child.value, node.value)) break
    nodes[index] = child
    child.index = index
    index = below
  }
  nodes[index] = node
  node.index = index
}
