import type { RunOptions } from '@mags/sdk'
import { type Command, Option } from 'commander'
import type { Cli } from '../cli.ts'
import { usageError } from '../exit/cli-error.ts'
import { environmentEntry, repeatable, wholeNumber } from './flag-values.ts'

/** What `run` and `new` can ask of a sandbox. */
export interface SandboxFlags extends EgressFlags {
  readonly env?: Record<string, string>
  readonly image?: string
  readonly isolation?: RunOptions['isolation']
  readonly vcpus?: number
  readonly memory?: number
  readonly disk?: number
  readonly port?: number
}

/** What it may reach. */
export interface EgressFlags {
  readonly allow?: readonly string[]
  readonly deny?: readonly string[]
  /** False: nothing. */
  readonly network?: boolean
}

export function addEgressFlags(command: Command): Command {
  return command
    .option('--allow <target>', 'reach only this address, block or domain (*.example.org: all below it), repeatable', repeatable)
    .option('--deny <target>', 'never reach this one, repeatable', repeatable)
    .option('--no-network', 'reach nothing')
}

export function egressOption({ allow, deny, network }: EgressFlags): RunOptions['egress'] {
  const named = allow !== undefined || deny !== undefined
  if (network === false && named) throw usageError('--no-network reaches nothing at all: leave --allow and --deny out.')
  if (network === false) return 'none'
  return named ? { ...(allow === undefined ? {} : { allow }), ...(deny === undefined ? {} : { deny }) } : undefined
}

export function addSandboxFlags(command: Command, cli: Cli): Command {
  return addEgressFlags(command)
    .option('--env <NAME=VALUE>', 'environment variable, repeatable; NAME alone passes yours on', environmentEntry(cli.env))
    .option('--image <name>', 'image of the sandbox')
    .addOption(new Option('--isolation <wall>', 'which wall: auto, vm or container').choices(['auto', 'vm', 'container']))
    .option('--vcpus <count>', 'virtual CPUs', wholeNumber(1))
    .option('--memory <MB>', 'memory', wholeNumber(1))
    .option('--disk <GB>', 'writable disk', wholeNumber(1))
    .option('--port <port>', 'port that the URL of the job reaches', wholeNumber(1, 65_535))
}

export function sandboxOptions({ env, image, isolation, vcpus, memory, disk, port, ...egress }: SandboxFlags): RunOptions {
  return { environment: env, image, isolation, vcpus, memoryMb: memory, diskGb: disk, port, egress: egressOption(egress) }
}
