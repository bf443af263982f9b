import type { RunOptions } from '@mags/sdk'
import { Command } from 'commander'
import type { Cli, CommandDefinition } from '../cli.ts'
import { usageError } from '../exit/cli-error.ts'
import { parseName } from '../workspaces/version-reference.ts'
import { repeatable, wholeNumber } from './flag-values.ts'
import { addSandboxFlags, type SandboxFlags, sandboxOptions } from './sandbox-flags.ts'

interface RunFlags extends SandboxFlags {
  readonly persistent?: boolean
  readonly timeout?: number
  readonly name?: string
  readonly startupCommand?: string
  readonly sleep: boolean
  readonly detach?: boolean
  readonly scriptFile?: string
  readonly scriptUrl?: string
  readonly json?: boolean
  readonly workspace?: string
  readonly base?: string
  readonly file?: readonly string[]
  readonly ephemeral?: boolean
  readonly url?: boolean
}

export const runCommand: CommandDefinition = (cli, done) =>
  addSandboxFlags(mainFlags(), cli)
    .option('--startup-command <command>', 'run when a sleeping sandbox wakes without its processes')
    .option('--no-sleep', 'never put to sleep (needs -p)')
    .option('--script-file <file>', 'read the script from a file')
    .option('--script-url <address>', 'let the server fetch the script')
    .option('--detach', 'print the id and return at once')
    .option('--json', "print the job's status as JSON at the end, with its log")
    .action(async (words: string[], flags: RunFlags) => {
      if (flags.url && !flags.persistent) throw usageError('--url needs --persistent: another sandbox ends with its script.')
      if (flags.url && flags.detach) throw usageError("--detach does not wait for the URL: leave --url out, and ask for it with 'mags url' later.")
      if (flags.ephemeral && flags.workspace !== undefined) throw usageError('--ephemeral keeps nothing and --workspace keeps everything: give one of them.')
      if (!flags.sleep && !flags.persistent) throw usageError('--no-sleep needs --persistent: another sandbox ends with its script.')
      done(await start(cli, words, flags))
    })

/** Those one looks for first stand first in the help. */
function mainFlags(): Command {
  return new Command('run')
    .summary('run a script in a sandbox and show its output')
    .description(
      "Runs a shell script in a fresh sandbox, shows its output as it comes, and ends with its exit code. 'mags run -' reads it from standard input.",
    )
    .argument('[script...]', 'shell script; several words are joined by spaces')
    .option('-p, --persistent', 'keep the sandbox; print its id and URL and return once the script runs')
    .option('--url', 'its port (--port, 8080) is wanted: the script is the server behind the URL, and does not keep the sandbox awake (needs -p)')
    .option('-w, --workspace <name>', 'restored before and saved after; made when there is none', parseName)
    .option('--base <workspace>', 'begin as this workspace is, which is not changed; with -w a fork of it', parseName)
    .option('-e, --ephemeral', 'keep nothing, which is also what it does without -w')
    .option('-f, --file <path>', 'upload a file and put it into /root, repeatable', repeatable)
    .option('-t, --timeout <seconds>', 'end the script after this long (300; none with -p)', wholeNumber(1))
    .option('-n, --name <name>', 'name of the job')
}

async function start(cli: Cli, words: readonly string[], flags: RunFlags): Promise<number> {
  const { readScript } = await import('../run/read-script.ts')
  const { runJob } = await import('../run/run-job.ts')
  const files = flags.file ?? []
  if (files.length > 0) (await import('../run/check-files.ts')).checkFiles(files)
  const { script, type } = await readScript(cli, { words, file: flags.scriptFile, url: flags.scriptUrl })
  const options: RunOptions = {
    type,
    name: flags.name,
    persistent: flags.persistent,
    timeout: flags.timeout,
    startupCommand: flags.startupCommand,
    workspaceId: flags.workspace,
    baseWorkspaceId: flags.base,
    ...sandboxOptions(flags),
    noSleep: flags.sleep ? undefined : true,
  }
  return await runJob(cli, { script, options, files, detach: flags.detach === true, url: flags.url === true })
}
