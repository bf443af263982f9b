/** Exit codes of the contract; a script's own code passes through. */
export const exitCodes = { ok: 0, failure: 1, usage: 2, timeout: 124, interrupted: 130, brokenPipe: 141 } as const

/** A failure of ours in words for a person, with its exit code and a stable code for `--json`. */
export class CliError extends Error {
  readonly exitCode: number
  readonly code: string

  constructor(message: string, options: { exitCode?: number; code?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'CliError'
    this.exitCode = options.exitCode ?? exitCodes.failure
    this.code = options.code ?? 'cli_error'
  }
}

/** The command line is wrong: exit code 2. */
export function usageError(message: string, code = 'usage'): CliError {
  return new CliError(message, { exitCode: exitCodes.usage, code })
}

/** For what the contract names but no server can do yet. */
export function notAvailableYet(what: string): CliError {
  return usageError(`${what} is not available yet.`, 'not_available')
}
