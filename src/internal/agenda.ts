/** An agenda of future events: a binary heap. Adding and removing an entry take O(log n). */

/** An event at an instant, in any unit of time. Entries of one instant are in the order in which they were added. */
export interface Entry {
  readonly at: number
  readonly order: number
  /** Undefined if the event was cancelled. It is passed the instant at which it happens. */
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

/** Removes and returns the next entry; undefined if there is none. */
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
