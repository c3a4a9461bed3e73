/**
 * The fair order: callers share the limits by their weights.
 *
 * Start-time fair queueing (Goyal, Vin and Cheng, 1996): the caller of the lowest rank is next, which has had the least
 * for its weight, and the virtual time is the rank of the latest start, at which callers come in anew. Changed so that
 * no caller starves beside others that each come once (a newcomer's rank includes a quarter of its cost), that
 * interrupted waiters leave no trace (nothing is charged before the start), that nobody hoards by late settlements (see
 * `floor` in `account.ts`), and that nobody owes for what started or ran while no call waited.
 */
import type { Demand } from "../demand.ts"
import * as Heap from "../heap.ts"
import * as Account from "./account.ts"
import { before } from "./foresight.ts"
import { rankOf } from "./priority.ts"
import type { Queue, Queued } from "./queue.ts"

/** Maximum number of callers that are remembered only because of what they have had. */
const mostOwing = 1_000

/** The run in nanoseconds that is foreseen before any call has ended. */
const unknownRun = 1_000

/**
 * Shares the limits fairly among callers; the calls of one caller start by priority.
 *
 * Each operation takes O(log n). `now` reads the clock in nanoseconds; `ageing`: the nanoseconds of waiting that one step
 * of priority is worth.
 */
export const fair = <W extends Queued>(now: () => number, ageing: number): Queue<W> => {
  const accounts = new Map<string, Account.Account<W>>()
  /** The callers that wait. */
  const waiting = Heap.make<Account.Account<W>>(Account.isNext)
  /** The started calls that have paid for their run so far, by how long that lasts. */
  const paid = Heap.make<Account.Entry<W>>((a, b) => a.paidUntil < b.paidUntil)
  /** The callers that neither wait nor have a call open, by what they have had. */
  const owing = Heap.make<Account.Account<W>>((a, b) => a.had < b.had)
  let virtual = 0
  let lastWeight = 1
  let arrivals = 0
  /** The smoothed run of all calls. */
  let run: number | undefined
  /** The number of waiting calls. */
  let size = 0
  /** The running clock, which stands still while no call waits: its value at the instant `since`, when that changed. */
  let ranUntil = 0
  let since = 0

  /** Reads the running clock, and lets runs accrue that are not paid for any more. Comes before any other change. */
  const advance = (): number => {
    const at = size > 0 ? ranUntil + (now() - since) : ranUntil
    for (let entry = Heap.first(paid); entry !== undefined && entry.paidUntil < at; entry = Heap.first(paid)) {
      Heap.remove(paid, entry.running)
      Account.accrue(entry.account, entry.paidUntil)
      Account.setOverrun(entry, true)
    }
    return at
  }

  /** The virtual time now: while no call waits it runs with the clock, so that debts fade. */
  const fadedTo = (): number => size > 0 ? virtual : virtual + Math.max(0, now() - since) / lastWeight

  /** What a demand costs for the run that is foreseen. */
  const heldOf = (demand: Demand, account: Account.Account<W> | undefined): number =>
    Account.shareOf(demand) * (account?.run ?? run ?? unknownRun)

  const costOf = (demand: Demand, account: Account.Account<W> | undefined): number =>
    Math.max(Account.timingOf(demand), heldOf(demand, account))

  /** Decides what the next call of a caller costs. */
  const price = (next: Account.Entry<W>): void => {
    next.held = heldOf(next.waiter.demand, next.account)
    next.cost = Math.max(Account.timingOf(next.waiter.demand), next.held)
  }

  /** Chooses the next call of a caller, after a change of its calls. */
  const chooseNext = (account: Account.Account<W>): void => {
    const next = Heap.first(account.calls)
    if (next === account.next) return
    account.next = next
    if (next !== undefined) price(next)
  }

  const rerank = (account: Account.Account<W>, at: number): void => {
    Account.accrue(account, at)
    account.rank = Account.rankOf(account, account.next!)
    Heap.place(waiting, account.waiting)
  }

  /** Places a caller after a change: it waits, has calls open, or only owes. */
  const place = (account: Account.Account<W>, at: number): void => {
    if (account.next !== undefined) rerank(account, at)
    else {
      Heap.remove(waiting, account.waiting)
      if (account.open === 0) Heap.place(owing, account.owing)
    }
  }

  /**
   * Reranks the first caller until it stays first, and returns it. By themselves ranks only grow, so the others need no
   * look. `beside`: the caller that is left out.
   */
  const refresh = (at: number, beside?: Account.Account<W>): Account.Account<W> | undefined => {
    for (;;) {
      const first = beside === undefined ? Heap.first(waiting) : Heap.firstBeside(waiting, beside.waiting)
      if (first === undefined) return undefined
      const { rank } = first
      rerank(first, at)
      if (first.rank === rank) return first
    }
  }

  /** Forgets the callers that owe nothing any more, and those that owe least if there are too many. */
  const forget = (): void => {
    for (let least = Heap.first(owing); least !== undefined; least = Heap.first(owing)) {
      if (least.had > virtual && owing.nodes.length <= mostOwing) return
      Heap.remove(owing, least.owing)
      accounts.delete(least.key)
    }
    if (accounts.size === 0) virtual = 0
  }

  /** Returns the entry of a started call that may still be charged or refunded. It may be of a queue before an update. */
  const openEntry = ({ place }: W): Account.Entry<W> | undefined => {
    const entry = place as Account.Entry<W> | undefined
    const isOpen = entry !== undefined && entry.state !== "closed" && accounts.get(entry.account.key) === entry.account
    return isOpen ? entry : undefined
  }

  /** Changes what a started call costs. */
  const change = (call: W, apply: (entry: Account.Entry<W>, at: number) => void): void => {
    const entry = openEntry(call)
    if (entry === undefined) return
    const at = advance()
    Account.accrue(entry.account, at)
    apply(entry, at)
    if (entry.state === "paid" && entry.share > 0) Heap.place(paid, entry.running)
    else Heap.remove(paid, entry.running)
    place(entry.account, at)
    refresh(at)
    forget()
  }

  return {
    peek: () => Heap.first(waiting)?.next!.waiter,

    push: (waiter) => {
      if (size === 0) {
        if (accounts.size > 0) virtual = fadedTo()
        since = now()
        forget()
      }
      size++
      const at = advance()
      const { caller: { key, weight } } = waiter
      let account = accounts.get(key)
      if (account === undefined) {
        account = Account.make<W>(key, at)
        accounts.set(key, account)
      }
      Account.accrue(account, at)
      if (account.next === undefined) {
        Heap.remove(owing, account.owing)
        Account.beginWait(account, virtual)
      }
      const entry = Account.entry(account, waiter, weight, rankOf(waiter, ageing), arrivals++)
      waiter.place = entry
      Heap.place(account.calls, entry.own)
      chooseNext(account)
      rerank(account, at)
      refresh(at)
    },

    remove: (waiter, hasStarted) => {
      const at = advance()
      const entry = waiter.place as Account.Entry<W>
      const { account } = entry
      Account.accrue(account, at)
      entry.state = "closed"
      if (hasStarted) {
        const rank = Account.rankOf(account, entry)
        virtual = Math.max(virtual, rank)
        lastWeight = entry.weight
        Account.start(entry, rank, waiter.demand, at)
        if (entry.share > 0) Heap.place(paid, entry.running)
        else if (waiter.settlement === undefined) Account.close(entry, entry.charged, at)
      }
      if (entry.state === "closed") waiter.place = undefined
      Heap.remove(account.calls, entry.own)
      chooseNext(account)
      place(account, at)
      size--
      if (size === 0) {
        ranUntil = at
        since = now()
      }
      refresh(at)
      forget()
    },

    ranking: {
      isFirst: (newcomer) => {
        const account = accounts.get(newcomer.caller.key)
        if (account?.next !== undefined && rankOf(newcomer, ageing) >= account.next.rank) return false
        const at = advance()
        const rival = refresh(at, account)
        if (rival === undefined) return true
        if (account !== undefined) Account.accrue(account, at)
        const cost = costOf(newcomer.demand, account)
        const { weight } = newcomer.caller
        const { came, had } = account?.next === undefined ? { came: virtual, had: account?.had ?? -Infinity } : account
        return Account.rankOf({ came, had }, { cost, weight }) < rival.rank
      },
      before: (newcomer) => {
        const at = advance()
        const callers = waiting.nodes.map(({ value }) => value)
        const own = accounts.get(newcomer.caller.key)
        for (const account of own === undefined ? callers : [...callers, own]) Account.accrue(account, at)
        return before(callers, own, newcomer, { virtual, ageing, costOf })
      },
      refresh: () => void refresh(advance()),
      changesAt: () => {
        const at = advance()
        const first = refresh(at)
        if (first === undefined || first.open === 0 || waiting.nodes.length === 1) return Infinity
        // What accrues may change then.
        let changesAt = Heap.first(paid)?.paidUntil ?? Infinity
        Heap.descend(waiting, (other) => {
          if (other !== first) changesAt = Math.min(changesAt, Account.passesAt(first, other))
          return other === first || Account.hadAt(first, changesAt) > other.rank
        })
        return now() + (changesAt - at)
      },
      ended: (call) =>
        change(call, (entry, at) => {
          const { account, share, startedAt } = entry
          const ran = at - startedAt
          if (share > 0) {
            account.run = Account.smoothed(account.run, ran)
            run = Account.smoothed(run, ran)
          }
          Account.close(entry, Math.max(entry.timing, share * ran), at)
        }),
      cancelled: (call) => change(call, (entry, at) => Account.close(entry, 0, at)),
      settled: (call, actual) =>
        change(call, (entry, at) => {
          entry.timing = Account.timingOf(actual)
          Account.recharge(entry, Math.max(entry.timing, entry.held), at)
        }),
      replanned: () => {
        const at = advance()
        for (const { value: account } of waiting.nodes.slice()) {
          price(account.next!)
          rerank(account, at)
        }
        refresh(at)
      },
      ahead: () => {
        const at = advance()
        const faded = fadedTo()
        return Array.from(accounts.values(), (account) => {
          Account.accrue(account, at)
          return [account.key, Math.max(0, account.had - faded)] as const
        })
      },
      isSettled: () => {
        const faded = fadedTo()
        return owing.nodes.every(({ value }) => value.had <= faded)
      }
    }
  }
}
