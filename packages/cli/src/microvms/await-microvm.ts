import { type Mags, type MicrovmWire, wait } from '@mags/sdk'
import type { Cli } from '../cli.ts'
import { CliError } from '../exit/cli-error.ts'

const longestPauseMs = 1000
const saidAfterMs = 1000

/** Waits until a microVM is `passing` no more. Interrupted, it leaves it as it is. Throws CliError when it ends in error. */
export async function awaitMicrovm(cli: Cli, mags: Mags, id: string, passing: 'creating' | 'stopping'): Promise<MicrovmWire> {
  const began = performance.now()
  let said = false
  for (let pauseMs = 50; ; pauseMs = Math.min(pauseMs * 1.5, longestPauseMs)) {
    const vm = await mags.microvms.get(id, { signal: cli.interrupts.requested })
    if (vm.status === 'error') throw new CliError(`${vm.name}: ${vm.error ?? 'it ended in error'}`, { code: 'microvm_failed' })
    if (vm.status !== passing) return vm
    if (!said && performance.now() - began > saidAfterMs) {
      said = true
      await cli.output.aside(`${vm.name} is ${passing} … (Ctrl-C leaves it to itself)`)
    }
    await wait(pauseMs, cli.interrupts.requested)
  }
}
