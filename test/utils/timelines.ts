/** The scenarios of an independent brute-force model, each with its one right outcome. Times are milliseconds. */
import orders from "../timelines-order.json" with { type: "json" }
import all from "../timelines.json" with { type: "json" }

export interface Timeline {
  readonly name: string
  readonly policy: object
  readonly calls: ReadonlyArray<{
    readonly at: number
    readonly runs?: number
    readonly permits?: number
    readonly cost?: Readonly<Record<string, number>>
    readonly caller?: string
    readonly weight?: number
    readonly priority?: number
    readonly interruptAt?: number
  }>
  readonly expect: ReadonlyArray<
    { readonly start: number } | { readonly rejected: string } | { readonly interrupted: true }
  >
}

export const timelines = all as unknown as ReadonlyArray<Timeline>

/** Scenarios of the orders of the queue, each with a reason. */
export const orderTimelines = orders as unknown as ReadonlyArray<Timeline>
