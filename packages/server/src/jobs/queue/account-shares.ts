import type { JobRun } from '../job-run.ts'

export interface SharesOptions {
  /** For how many jobs of one account a sandbox is asked for at once, while nobody else waits. */
  readonly maxTaking: number
  /** Jobs of one account with a sandbox that is awake, or asked for; 0: no bound. */
  readonly maxRunning: number
}

type Counted = Pick<JobRun, 'accountId' | 'sleep'>

/** For all accounts together; how many sandboxes there can be is the host's business. */
const mostTaking = 64

/**
 * How much of the machine each account has: the jobs it runs, and those it asks a sandbox for.
 *
 * The host hands sandboxes out in the order they were asked for. So an account asks for few at once, and for fewer when others wait: who comes new never stands behind a long row of somebody else's there.
 */
export class AccountShares {
  readonly #options: SharesOptions
  readonly #runs = new Map<string, Set<Counted>>()
  readonly #taking = new Map<string, number>()
  #allTaking = 0

  constructor(options: SharesOptions) {
    this.#options = options
  }

  /** It does not wait any more. */
  begin(run: Counted): void {
    const runs = this.#runs.get(run.accountId) ?? new Set()
    this.#runs.set(run.accountId, runs)
    runs.add(run)
  }

  /** It is over, or waits again. */
  end(run: Counted): void {
    const runs = this.#runs.get(run.accountId)
    runs?.delete(run)
    if (runs?.size === 0) this.#runs.delete(run.accountId)
  }

  /** A sandbox is asked for, until the returned function is called, which may be more than once. */
  take({ accountId }: Counted): () => void {
    this.#count(accountId, 1)
    let over = false
    return () => {
      if (!over) this.#count(accountId, -1)
      over = true
    }
  }

  takingOf(accountId: string): number {
    return this.#taking.get(accountId) ?? 0
  }

  /** Says which of these accounts, which all have something that waits, may ask for one more; undefined when none may. */
  chooser(accounts: Iterable<string>): ((accountId: string) => boolean) | undefined {
    if (this.#allTaking >= mostTaking) return undefined
    const able = new Set<string>()
    for (const accountId of accounts) if (this.hasRoom(accountId, 1)) able.add(accountId)
    const share = Math.max(1, Math.floor(this.#options.maxTaking / Math.max(1, able.size)))
    return (accountId) => able.has(accountId) && this.takingOf(accountId) < share
  }

  /** Whether an account may have so many more awake; 0: whether those it has are not too many. */
  hasRoom(accountId: string, more: number): boolean {
    const { maxRunning } = this.#options
    if (maxRunning === 0) return true
    let awake = 0
    for (const { sleep } of this.#runs.get(accountId) ?? []) if (sleep.takesRoom) awake++
    return awake + more <= maxRunning
  }

  #count(accountId: string, change: 1 | -1): void {
    const count = this.takingOf(accountId) + change
    if (count > 0) this.#taking.set(accountId, count)
    else this.#taking.delete(accountId)
    this.#allTaking += change
  }
}
