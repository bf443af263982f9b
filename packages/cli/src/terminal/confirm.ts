import { createInterface } from 'node:readline/promises'
import type { Cli } from '../cli.ts'
import { CliError, usageError } from '../exit/cli-error.ts'

/**
 * Asks before something that cannot be undone; returns when it may go on. Throws CliError for any other answer than yes, and when there is
 * no terminal to ask on.
 */
export async function confirm(cli: Cli, question: string, { yes }: { yes: boolean }): Promise<void> {
  if (yes) return
  if (!process.stdin.isTTY || !cli.output.stderrIsTerminal || cli.output.json)
    throw usageError(`${question} There is no terminal to ask on: --yes says so beforehand.`)
  cli.interrupts.listen()
  const lines = createInterface({ input: process.stdin, output: process.stderr })
  const ended = new AbortController()
  // The terminal is in readline's hands: Ctrl-C comes to it as a key, and Ctrl-D closes it without an answer.
  lines.on('SIGINT', () => process.kill(process.pid, 'SIGINT'))
  lines.on('close', () => ended.abort())
  try {
    const answer = await lines.question(`${question} [y/N] `, { signal: AbortSignal.any([cli.interrupts.requested, ended.signal]) }).catch(() => '')
    cli.interrupts.requested.throwIfAborted()
    if (!/^y(es)?$/i.test(answer.trim())) throw new CliError('Nothing was changed.', { code: 'declined' })
  } finally {
    lines.close()
  }
}
