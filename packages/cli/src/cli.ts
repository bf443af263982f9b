import type { Command } from 'commander'
import type { Interrupts } from './terminal/interrupts.ts'
import type { Output } from './terminal/output.ts'

/** What every command gets. */
export interface Cli {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly output: Output
  readonly interrupts: Interrupts
}

/** Makes the definition of one command; `done` takes the exit code. */
export type CommandDefinition = (cli: Cli, done: (exitCode: number) => void) => Command
