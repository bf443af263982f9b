import type { RunOptions } from '@mags/sdk'
import { type Command, Option } from 'commander'
import type { Cli } from '../cli.ts'
import { environmentEntry, wholeNumber } from './flag-values.ts'

/** What `run` and `new` can ask of a sandbox. */
export interface SandboxFlags {
  readonly env?: Record<string, string>
  readonly image?: string
  readonly isolation?: RunOptions['isolation']
  readonly vcpus?: number
  readonly memory?: number
  readonly disk?: number
  readonly port?: number
}

export function addSandboxFlags(command: Command, cli: Cli): Command {
  return command
    .option('--env <NAME=VALUE>', 'environment variable, repeatable; NAME alone passes yours on', environmentEntry(cli.env))
    .option('--image <name>', 'image of the sandbox')
    .addOption(new Option('--isolation <wall>', 'which wall: auto, vm or container').choices(['auto', 'vm', 'container']))
    .option('--vcpus <count>', 'virtual CPUs', wholeNumber(1))
    .option('--memory <MB>', 'memory', wholeNumber(1))
    .option('--disk <GB>', 'writable disk', wholeNumber(1))
    .option('--port <port>', 'port that the URL of the job reaches', wholeNumber(1, 65_535))
}

export function sandboxOptions({ env, image, isolation, vcpus, memory, disk, port }: SandboxFlags): RunOptions {
  return { environment: env, image, isolation, vcpus, memoryMb: memory, diskGb: disk, port }
}
