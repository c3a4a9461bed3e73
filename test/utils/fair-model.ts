/**
 * A slow model of the fair order, written from its rules: plain arrays, no heaps, everything computed anew at each event.
 *
 * The clock is told to it. What a call has cost is a function of how long it ran while calls waited, so nothing accrues.
 */
export interface ModelPlan {
  /** The time of the whole throttle that a call's time-based parts take, in nanoseconds. */
  readonly timing: number
  /** The largest share of the permits of a part that it holds. */
  readonly share: number
}

export interface ModelCall extends ModelPlan {
  readonly id: number
  readonly key: string
  readonly weight: number
  readonly priority: number
  readonly arrival: number
}

interface Waiting extends ModelCall {
  timing: number
  share: number
  /** Rule 5: decided when it becomes next. */
  cost: number
  held: number
}

interface Running {
  readonly call: Waiting
  readonly wait: number
  /** What it was charged at the start, and the part of that for its timing. */
  cost: number
  timing: number
  /** How long it has run while calls waited. */
  ran: number
}

interface Caller {
  readonly key: string
  had: number
  came: number
  floor: number
  wait: number
  mean: number | undefined
  next: Waiting | undefined
}

export class FairModel {
  readonly ageing: number
  v = 0
  now = 0
  lastWeight = 1
  mean: number | undefined
  /** By arrival. */
  waiting: Array<Waiting> = []
  running: Array<Running> = []
  callers: Array<Caller> = []
  emptySince = 0

  constructor(ageing: number) {
    this.ageing = ageing
  }

  clone(): FairModel {
    const copy = new FairModel(this.ageing)
    const calls = new Map(this.waiting.map((call) => [call.id, { ...call }]))
    return Object.assign(copy, this, {
      waiting: [...calls.values()],
      running: this.running.map((run) => ({ ...run })),
      callers: this.callers.map((caller) => ({ ...caller, next: caller.next && calls.get(caller.next.id) }))
    })
  }

  /** Rules 7 and 8: lets time pass. */
  advance(now: number): void {
    const elapsed = now - this.now
    this.now = now
    if (this.waiting.length === 0) return
    for (const run of this.running) {
      const before = this.charged(run)
      run.ran += elapsed
      this.correct(run, this.charged(run) - before)
    }
  }

  charged({ call: { share }, cost, ran }: Running): number {
    return Math.max(cost, share * ran)
  }

  callerOf(key: string): Caller | undefined {
    return this.callers.find((caller) => caller.key === key)
  }

  ownCalls(key: string): Array<Waiting> {
    return this.waiting.filter((call) => call.key === key)
  }

  /** Rule 3. */
  private byPriority(calls: ReadonlyArray<Waiting>): Waiting | undefined {
    let best: Waiting | undefined
    const rank = (call: Waiting) => call.arrival - call.priority * this.ageing
    for (const call of calls) if (best === undefined || rank(call) < rank(best)) best = call
    return best
  }

  costsOf({ share, timing }: ModelPlan, caller: Caller | undefined): { cost: number; held: number } {
    const held = share * (caller?.mean ?? this.mean ?? 1_000)
    return { cost: Math.max(timing, held), held }
  }

  private chooseNext(caller: Caller): void {
    const next = this.byPriority(this.ownCalls(caller.key))
    if (next === caller.next) return
    caller.next = next
    if (next !== undefined) Object.assign(next, this.costsOf(next, caller))
  }

  /** Rule 4. */
  rankOf(caller: Caller): number {
    const { cost, weight } = caller.next!
    return Math.max(caller.had, caller.came + cost / (4 * weight))
  }

  /** Rule 1. */
  head(): Waiting | undefined {
    let best: Caller | undefined
    for (const { key } of this.waiting) {
      const caller = this.callerOf(key)!
      if (best === undefined) best = caller
      else if (caller !== best) {
        const [a, b] = [this.rankOf(caller), this.rankOf(best)]
        if (a < b || (a === b && this.waiting.indexOf(caller.next!) < this.waiting.indexOf(best.next!))) best = caller
      }
    }
    return best?.next
  }

  /** The first instant before `until` at which another call is the head, if nothing else happens, to the nanosecond. */
  changesAt(until: number): number {
    const head = this.head()
    if (head === undefined || until === Infinity) return Infinity
    const isAnother = (at: number) => {
      const copy = this.clone()
      copy.advance(at)
      return copy.head()!.id !== head.id
    }
    const samples = 32
    for (let i = 1; i <= samples; i++) {
      let last = this.now + (until - this.now) * i / samples
      if (!isAnother(last)) continue
      for (let first = this.now; last - first > 1;) {
        const middle = (first + last) / 2
        if (isAnother(middle)) last = middle
        else first = middle
      }
      return last
    }
    return Infinity
  }

  /** How much further the second caller is than the first. If it is next to nothing, rounding decides between them. */
  margin(): number {
    const [first = 0, second = Infinity] = this.ranks().map(({ rank }) => rank).toSorted((a, b) => a - b)
    return second - first
  }

  /** Rule 9. */
  private correct({ call: { key, weight }, wait }: Running, nanos: number): void {
    const caller = this.callerOf(key)!
    const amount = nanos / weight
    if (caller.wait === wait) {
      caller.had += amount
      caller.floor += amount
    } else if (amount < 0 && caller.next !== undefined) {
      caller.had = caller.had <= caller.floor ? caller.had : Math.max(caller.had + amount, caller.floor)
    } else caller.had += amount
  }

  /** Rule 12. */
  private forget(): void {
    const isIdle = ({ key, next }: Caller) => next === undefined && !this.running.some(({ call }) => call.key === key)
    this.callers = this.callers.filter((caller) => !isIdle(caller) || caller.had > this.v)
    const idle = this.callers.filter(isIdle).toSorted((a, b) => a.had - b.had)
    const dropped = new Set(idle.slice(0, Math.max(0, idle.length - 1_000)))
    this.callers = this.callers.filter((caller) => !dropped.has(caller))
    if (this.callers.length === 0) this.v = 0
  }

  arrive(call: ModelCall): void {
    if (this.waiting.length === 0) {
      // Rule 11.
      if (this.callers.length > 0) this.v += (this.now - this.emptySince) / this.lastWeight
      this.forget()
    }
    const waiting: Waiting = { ...call, cost: 0, held: 0 }
    let caller = this.callerOf(call.key)
    if (caller === undefined) {
      caller = {
        key: call.key,
        had: -Infinity,
        came: 0,
        floor: 0,
        wait: 0,
        mean: undefined,
        next: undefined
      }
      this.callers.push(caller)
    }
    if (caller.next === undefined) {
      caller.came = this.v
      caller.floor = this.v
      caller.wait++
    }
    this.waiting.push(waiting)
    this.chooseNext(caller)
  }

  /** Whether this call would be the head if it came now. */
  isFirst(call: ModelCall): boolean {
    const copy = this.clone()
    copy.arrive(call)
    return copy.head()!.id === call.id
  }

  private remove(id: number): Waiting {
    const call = this.waiting.find((one) => one.id === id)!
    this.waiting = this.waiting.filter((one) => one !== call)
    if (this.waiting.length === 0) this.emptySince = this.now
    return call
  }

  /** Rule 6. `counts`: whether something may be charged or refunded later. */
  start(id: number, counts: boolean): void {
    const call = this.waiting.find((one) => one.id === id)!
    const caller = this.callerOf(call.key)!
    const rank = this.rankOf({ ...caller, next: call })
    this.remove(id)
    this.v = Math.max(this.v, rank)
    this.lastWeight = call.weight
    caller.had = rank + call.cost / call.weight
    caller.floor = Math.max(caller.floor, caller.came + call.cost / (4 * call.weight)) + call.cost / call.weight
    if (counts) this.running.push({ call, wait: caller.wait, cost: call.cost, timing: call.timing, ran: 0 })
    this.chooseNext(caller)
    this.forget()
  }

  /** Rule 13. */
  leave(id: number): void {
    const { key } = this.remove(id)
    this.chooseNext(this.callerOf(key)!)
    this.forget()
  }

  private close(id: number, cost: (run: Running) => number): void {
    const run = this.running.find(({ call }) => call.id === id)
    if (run === undefined) return
    this.correct(run, cost(run) - this.charged(run))
    this.running = this.running.filter((one) => one !== run)
    this.forget()
  }

  end(id: number): void {
    const run = this.running.find(({ call }) => call.id === id)
    if (run !== undefined && run.call.share > 0) {
      const caller = this.callerOf(run.call.key)!
      const smooth = (mean: number | undefined) => mean === undefined ? run.ran : mean + (run.ran - mean) / 8
      caller.mean = smooth(caller.mean)
      this.mean = smooth(this.mean)
    }
    this.close(id, ({ call: { share }, ran, timing }) => Math.max(timing, share * ran))
  }

  cancel(id: number): void {
    this.close(id, () => 0)
  }

  settle(id: number, timing: number): void {
    const run = this.running.find(({ call }) => call.id === id)
    if (run === undefined) return
    const before = this.charged(run)
    run.timing = timing
    run.cost = Math.max(timing, run.call.held)
    this.correct(run, this.charged(run) - before)
    this.forget()
  }

  /** Rule 18: the same calls under other numbers. */
  update(planOf: (id: number) => ModelPlan): void {
    for (const call of this.waiting) Object.assign(call, planOf(call.id))
    for (const caller of this.callers) {
      if (caller.next !== undefined) Object.assign(caller.next, this.costsOf(caller.next, caller))
    }
  }

  /** By how much each caller has had more than its share. */
  ahead(): Map<string, number> {
    return new Map(this.callers.map(({ had, key }) => [key, Math.max(0, had - this.faded())]))
  }

  /** The virtual time now. */
  faded(): number {
    return this.waiting.length > 0 ? this.v : this.v + (this.now - this.emptySince) / this.lastWeight
  }

  /** The order in which the waiting calls and this one start, if nothing else happens and no run ends. */
  before(call: ModelCall): Array<number> {
    const copy = this.clone()
    copy.arrive(call)
    const started: Array<number> = []
    for (let head = copy.head()!; head.id !== call.id; head = copy.head()!) {
      started.push(head.id)
      copy.start(head.id, true)
    }
    return started
  }

  /** The ranks of the waiting callers. */
  ranks(): ReadonlyArray<{ readonly rank: number; readonly call: Waiting }> {
    return this.callers.flatMap((caller) =>
      caller.next === undefined ? [] : [{ rank: this.rankOf(caller), call: caller.next }]
    )
  }
}
