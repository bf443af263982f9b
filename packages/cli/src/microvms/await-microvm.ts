import { type Mags, type MicrovmWire, wait } from '@mags/sdk'
import type { Cli } from '../cli.ts'
import { CliError } from '../exit/cli-error.ts'
import { Interrupted } from '../terminal/interrupts.ts'

type Passing = 'creating' | 'stopping'

const longestPauseMs = 1000
const saidAfterMs = 1000

/**
 * Does what leads a microVM through `passing`. Says on a terminal what takes longer than a second; interrupted, it leaves the microVM to
 * itself and says so.
 */
export async function sayPassing<Result>(cli: Cli, name: string, passing: Passing, work: () => Promise<Result>): Promise<Result> {
  const timer = setTimeout(() => void cli.output.aside(`${name} is ${passing} … (Ctrl-C leaves it to itself)`), saidAfterMs)
  try {
    return await work()
  } catch (error) {
    if (error instanceof Interrupted) await cli.output.note(`${name} is left to itself: 'mags vm show ${name}' says how it stands`)
    throw error
  } finally {
    clearTimeout(timer)
  }
}

/** Waits until a microVM is `passing` no more. Throws CliError when it ends in error. */
export async function awaitMicrovm(cli: Cli, mags: Mags, id: string, passing: Passing): Promise<MicrovmWire> {
  for (let pauseMs = 50; ; pauseMs = Math.min(pauseMs * 1.5, longestPauseMs)) {
    const vm = await mags.microvms.get(id, { signal: cli.interrupts.requested })
    if (vm.status === 'error') throw new CliError(`${vm.name}: ${vm.error ?? 'it ended in error'}`, { code: 'microvm_failed' })
    if (vm.status !== passing) return vm
    await wait(pauseMs, cli.interrupts.requested)
  }
}
