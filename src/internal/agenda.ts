/**
 * What is to be done and when: a binary heap. Entering and leaving take time in proportion to the logarithm of its size.
 */

/** Something to be done at an instant, in milliseconds; at one instant in the order of entering. */
export interface Entry {
  readonly at: number
  readonly order: number
  /** Undefined when nothing is to be done any more. It is given the instant at which it is done. */
  action: ((at: number) => void) | undefined
}

export interface Agenda {
  readonly heap: Array<Entry>
  entered: number
}

export const make = (): Agenda => ({ heap: [], entered: 0 })

const isBefore = (a: Entry, b: Entry): boolean => a.at < b.at || (a.at === b.at && a.order < b.order)

export const enter = (agenda: Agenda, at: number, action: (at: number) => void): Entry => {
  const { heap } = agenda
  const entry: Entry = { at, order: agenda.entered++, action }
  let place = heap.length
  while (place > 0) {
    const above = (place - 1) >> 1
    if (!isBefore(entry, heap[above]!)) break
    heap[place] = heap[above]!
    place = above
  }
  heap[place] = entry
  return entry
}

/** Takes out the next entry; undefined if there is none. */
export const next = ({ heap }: Agenda): Entry | undefined => {
  const first = heap[0]
  const last = heap.pop()
  if (first === undefined || last === undefined || first === last) return first
  let place = 0
  for (;;) {
    let below = 2 * place + 1
    if (below >= heap.length) break
    if (below + 1 < heap.length && isBefore(heap[below + 1]!, heap[below]!)) below++
    if (!isBefore(heap[below]!, last)) break
    heap[place] = heap[below]!
    place = below
  }
  heap[place] = last
  return first
}
