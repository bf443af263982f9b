import { isUtf8 } from 'node:buffer'
import { type ExecOptions, type Mags, MagsProtocolError } from '@mags/sdk'
import { Command } from 'commander'
import type { Cli, CommandDefinition } from '../cli.ts'
import { CliError, usageError } from '../exit/cli-error.ts'
import { openSession } from '../server/session.ts'
import { readStdin } from '../terminal/read-stdin.ts'
import { commandWords } from './command-words.ts'
import { environmentEntry, wholeNumber } from './flag-values.ts'

interface ExecFlags {
  readonly timeout?: number
  readonly env?: Record<string, string>
  readonly cwd?: string
  readonly stdin: boolean
}

const maxStdinBytes = 1024 * 1024

export const execCommand: CommandDefinition = (cli, done) =>
  new Command('exec')
    .summary("run a command in a job's sandbox")
    .description("Runs one command in a job's sandbox, shows its output as it comes, and ends with its exit code. Flags come before the name.")
    .argument('<name>', 'id, name or workspace of the job')
    .argument('<command...>', 'shell command; several words are joined by spaces')
    .option('-t, --timeout <seconds>', 'end the command after this long (30)', wholeNumber(1))
    .option('--env <NAME=VALUE>', 'environment variable, repeatable; NAME alone passes yours on', environmentEntry(cli.env))
    .option('--cwd <folder>', 'where to run it, an absolute path')
    .option('--no-stdin', 'do not pass standard input on')
    .option('--json', 'print the answer of the API at the end')
    .passThroughOptions()
    .action(async (id: string, given: string[], flags: ExecFlags) => {
      const words = commandWords(given, 'exec')
      if (words.length === 0) throw usageError("No command. See 'mags exec --help'.")
      cli.interrupts.listen()
      const options: ExecOptions = { timeoutSeconds: flags.timeout, environment: flags.env, cwd: flags.cwd, signal: cli.interrupts.requested }
      const stdin = flags.stdin ? await readStdin(cli, maxStdinBytes, tooLong) : undefined
      if (stdin !== undefined && stdin.length > 0) options.stdin = asText(stdin)
      done(await execute(cli, id, words.join(' '), options))
    })

async function execute(cli: Cli, id: string, command: string, options: ExecOptions): Promise<number> {
  if (cli.output.json) {
    const { first: answer } = await openSession(cli, (mags) => mags.exec(id, command, options))
    await cli.output.data(answer)
    return answer.exit_code
  }
  const { first: exitCode } = await openSession(cli, (mags) => show(cli, mags, id, command, options))
  return exitCode
}

async function show(cli: Cli, mags: Mags, id: string, command: string, options: ExecOptions): Promise<number> {
  for await (const event of mags.execStream(id, command, options)) {
    if (event.type === 'system') await cli.output.note(event.message)
    else if (event.type === 'output') await (event.source === 'stdout' ? cli.output.out(event.bytes) : cli.output.err(event.bytes))
    else {
      if (event.truncated) await cli.output.note('some of the output was dropped: it was more than the server passes on')
      return event.exitCode
    }
  }
  throw new MagsProtocolError('The stream of the command ended without its exit code.')
}

function asText(bytes: Buffer): string {
  if (!isUtf8(bytes) || bytes.includes(0)) throw usageError('Standard input for exec must be text in UTF-8 without NUL characters (base64 carries anything).')
  return bytes.toString('utf8')
}

function tooLong(): CliError {
  return new CliError('Standard input for exec is limited to 1 MiB. Let the command fetch what it needs.', { code: 'too_large' })
}
