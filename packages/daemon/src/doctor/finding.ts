/** What a check found, in words for the person who looks after the machine. */
export interface Finding {
  readonly status: 'ok' | 'warning' | 'failure'
  readonly found: string
  /** What to do about it; absent when there is nothing. */
  readonly advice?: string
}

/** One part of the machine. A check that throws is a failure with the error's words. */
export interface Check {
  readonly part: string
  run(): Promise<Finding>
}

export const ok = (found: string): Finding => ({ status: 'ok', found })
export const warning = (found: string, advice: string): Finding => ({ status: 'warning', found, advice })
export const failure = (found: string, advice: string): Finding => ({ status: 'failure', found, advice })
