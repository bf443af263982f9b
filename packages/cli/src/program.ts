import { Command, type CommanderError } from 'commander'
import type { Cli, CommandDefinition } from './cli.ts'
import { exitCodes, notAvailableYet } from './exit/cli-error.ts'
import { Interrupts } from './terminal/interrupts.ts'
import { Output } from './terminal/output.ts'

/** Each is loaded only when it is asked for (or for help): loading all costs more than most of them take. */
const definitions: Readonly<Record<string, () => Promise<CommandDefinition>>> = {
  run: async () => (await import('./commands/run.ts')).runCommand,
  exec: async () => (await import('./commands/exec.ts')).execCommand,
  ssh: async () => (await import('./commands/ssh.ts')).sshCommand,
  new: async () => (await import('./commands/new.ts')).newCommand,
  cp: async () => (await import('./commands/cp.ts')).cpCommand,
  list: async () => (await import('./commands/list.ts')).listCommand,
  status: async () => (await import('./commands/status.ts')).statusCommand,
  logs: async () => (await import('./commands/logs.ts')).logsCommand,
  stop: async () => (await import('./commands/stop.ts')).stopCommand,
  url: async () => (await import('./commands/url.ts')).urlCommand,
  set: async () => (await import('./commands/set.ts')).setCommand,
  sleep: async () => (await import('./commands/sleep.ts')).sleepCommand,
  wake: async () => (await import('./commands/wake.ts')).wakeCommand,
  fork: async () => (await import('./commands/fork.ts')).forkCommand,
  sync: async () => (await import('./commands/sync.ts')).syncCommand,
  cron: async () => (await import('./commands/cron.ts')).cronCommand,
  job: async () => (await import('./commands/job.ts')).jobCommand,
  image: async () => (await import('./commands/image.ts')).imageCommand,
  template: async () => (await import('./commands/template.ts')).templateCommand,
  vm: async () => (await import('./commands/vm.ts')).vmCommand,
  workspace: async () => (await import('./commands/workspace.ts')).workspaceCommand,
  resize: async () => (await import('./commands/resize.ts')).resizeCommand,
  files: async () => (await import('./commands/files.ts')).filesCommand,
  pool: async () => (await import('./commands/pool.ts')).poolCommand,
  server: async () => (await import('./commands/server.ts')).serverCommand,
  doctor: async () => (await import('./commands/doctor.ts')).doctorCommand,
  version: async () => (await import('./commands/version.ts')).versionCommand,
}

/** Named by the documents, not there yet. */
const laterCommands: ReadonlySet<string> = new Set('token usage login logout whoami mcp'.split(' '))

/** Runs one command line and ends the process with its exit code. */
export async function main(args: readonly string[]): Promise<never> {
  const cli: Cli = { env: process.env, output: new Output(process, process.env), interrupts: new Interrupts() }
  process.exit(await runProgram(cli, args))
}

/** The exit code of one command line. */
export async function runProgram(cli: Cli, args: readonly string[]): Promise<number> {
  // Found before the command line is read, so that its faults come as JSON too.
  cli.output.json = beforeDashes(args).includes('--json')
  const program = newProgram()
  try {
    return await dispatch(cli, program, args)
  } catch (error) {
    const { reportFailure } = await import('./exit/report-failure.ts')
    return await reportFailure(error, cli.output, commandOf(program, args))
  }
}

/** The command that was asked for, such as `cron add`. */
function commandOf(program: Command, args: readonly string[]): string | undefined {
  const names: string[] = []
  let command: Command | undefined = program
  for (const word of args) {
    command = command.commands.find((each) => each.name() === word || each.aliases().includes(word))
    if (command === undefined) break
    names.push(command.name())
  }
  return names.length === 0 ? undefined : names.join(' ')
}

async function dispatch(cli: Cli, program: Command, args: readonly string[]): Promise<number> {
  const [asked] = args
  if (asked === '--version' || asked === '-V') return await dispatch(cli, program, ['version'])
  if (asked !== undefined && laterCommands.has(asked)) throw notAvailableYet(`'mags ${asked}'`)
  let exitCode: number = exitCodes.ok
  const needed = asked !== undefined && Object.hasOwn(definitions, asked) ? [asked] : Object.keys(definitions)
  for (const name of needed) {
    const define = await definitions[name]?.()
    const command = define?.(cli, (code) => {
      exitCode = code
    })
    if (command === undefined) continue
    command.hook('preAction', (_parent, action) => {
      // `mags url alias … --json`: the command above has that flag, too, and takes it.
      cli.output.json = action.optsWithGlobals<{ json?: boolean }>().json === true
    })
    program.addCommand(command.copyInheritedSettings(program))
    inheritSettings(command)
  }
  if (asked === undefined) program.outputHelp()
  else await program.parseAsync([...args], { from: 'user' })
  return exitCode
}

/** What the program sets holds for every command below. */
function inheritSettings(command: Command): void {
  for (const part of command.commands) inheritSettings(part.copyInheritedSettings(command))
}

function newProgram(): Command {
  return new Command('mags')
    .description('Runs scripts in sandboxes on a machine of yours.')
    .option('-V, --version', 'print the version')
    .enablePositionalOptions()
    .exitOverride((error: CommanderError) => {
      throw error
    })
    .configureOutput({ outputError: () => undefined })
    .addHelpText('after', '\nThe server: MAGS_API_URL and MAGS_API_TOKEN, else ~/.mags/config.json, else one on this machine, started when needed.')
}

function beforeDashes(args: readonly string[]): readonly string[] {
  const end = args.indexOf('--')
  return end === -1 ? args : args.slice(0, end)
}
