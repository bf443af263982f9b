import { readFileSync } from 'node:fs'
import type { CreateMicrovmOptions, Mags, MicrovmStateWire, MicrovmWire } from '@mags/sdk'
import { Command, Option } from 'commander'
import type { Cli, CommandDefinition } from '../cli.ts'
import { CliError, usageError } from '../exit/cli-error.ts'
import { localStats } from '../files/local-stats.ts'
import { openSession } from '../server/session.ts'
import { confirm } from '../terminal/confirm.ts'
import { commandWords } from './command-words.ts'
import { repeatable, wholeNumber } from './flag-values.ts'
import { jsonToo, type PageFlags, paged, sayMore } from './paging.ts'
import { addEgressFlags, type EgressFlags, egressOption } from './sandbox-flags.ts'

/** What ssh(1) ends with when it cannot connect. */
const sshFailure = 255

type Done = Parameters<CommandDefinition>[1]

interface CreateFlags extends EgressFlags {
  readonly cpu?: number
  readonly memory?: number
  readonly disk?: number
  readonly image?: string
  readonly key?: readonly string[]
  readonly isolation?: CreateMicrovmOptions['isolation']
  readonly ipLease?: boolean
  readonly port?: number
  readonly detach?: boolean
}

export const vmCommand: CommandDefinition = (cli, done) => {
  const command = new Command('vm')
    .enablePositionalOptions()
    .summary('machines that last, with a disk and services of their own')
    .description('MicroVMs: machines that boot their image with its services, and keep their disk, keys and addresses over stop and start.')
  for (const define of [create, list, show, ssh, start, stop, restart, remove]) command.addCommand(define(cli, done))
  return command
}

function create(cli: Cli, done: Done): Command {
  return addEgressFlags(
    jsonToo(
      new Command('create')
        .summary('make a microVM, and start it')
        .argument('<name>', 'its name')
        .option('--cpu <count>', 'virtual CPUs (2)', wholeNumber(1))
        .option('--memory <MB>', 'memory (1024)', wholeNumber(1))
        .option('--disk <GB>', 'disk (10)', wholeNumber(1))
        .option('--image <name>', "image (ubuntu-22.04); 'mags image list' shows those there are")
        .option('--key <file>', 'public key that opens it, repeatable; without any a key is made', repeatable)
        .addOption(
          new Option('--isolation <wall>', 'which wall: vm, container (which starts no services), or auto: vm if there are any').choices([
            'auto',
            'vm',
            'container',
          ]),
        )
        .option('--ip-lease', 'an address of its own')
        .option('--port <port>', 'port that its URL reaches (8080)', wholeNumber(1, 65_535))
        .option('--detach', 'do not wait until it runs'),
    ),
  ).action(async (text: string, flags: CreateFlags) => {
    const { cpu, memory, disk, image, isolation, ipLease, port } = flags
    const name = parseName(text)
    const sshPublicKeys = flags.key?.map(readPublicKey)
    const options = { name, cpu, memory, disk, image, isolation, ipLease, port, sshPublicKeys, egress: egressOption(flags), signal: cli.interrupts.requested }
    const { awaitMicrovm, sayPassing } = await import('../microvms/await-microvm.ts')
    const vm = await sayPassing(cli, name, 'creating', async () => {
      const { mags, first: made } = await openSession(cli, (client) => client.microvms.create(options))
      for (const warning of made.warnings ?? []) await cli.output.note(`warning: ${warning}`)
      return flags.detach ? made : await awaitMicrovm(cli, mags, made.id, 'creating')
    })
    await (cli.output.json ? cli.output.data(vm) : cli.output.out(`${vm.id}\n`))
    await cli.output.aside(`${vm.name} is ${vm.status}: 'mags vm ssh ${vm.name}' opens a shell`)
    done(0)
  })
}

function parseName(text: string): string {
  if (!/^[A-Za-z0-9._-]{1,63}$/.test(text)) throw usageError('The name of a microVM is 1 to 63 of A-Z a-z 0-9 . _ -.')
  return text
}

function readPublicKey(file: string): string {
  localStats(file)
  try {
    return readFileSync(file, 'utf8').trim()
  } catch (error) {
    throw usageError(`--key: ${error instanceof Error ? error.message : String(error)}.`)
  }
}

function list(cli: Cli, done: Done): Command {
  return paged(new Command('list').alias('ls').summary('list microVMs, newest first'), 'microVMs').action(async ({ page, pageSize }: PageFlags) => {
    const { first: answer } = await openSession(cli, (mags) => mags.microvms.list({ page, pageSize, signal: cli.interrupts.requested }))
    const { microvmTable } = await import('../microvms/describe-microvm.ts')
    await (cli.output.json ? cli.output.data(answer) : cli.output.out(microvmTable(answer.microvms)))
    await sayMore(cli, answer, answer.microvms.length)
    done(0)
  })
}

function show(cli: Cli, done: Done): Command {
  return jsonToo(named(new Command('show').summary('show how a microVM stands'))).action(async (name: string) => {
    const { first: vm } = await openSession(cli, (mags) => mags.microvms.get(name, { signal: cli.interrupts.requested }))
    const { describeMicrovm } = await import('../microvms/describe-microvm.ts')
    await (cli.output.json ? cli.output.data(vm) : cli.output.out(describeMicrovm(vm)))
    done(0)
  })
}

function ssh(cli: Cli, done: Done): Command {
  return new Command('ssh')
    .summary('a shell in a microVM')
    .description("Opens a shell in a microVM through OpenSSH's client, or runs one command, and ends with its exit code. Flags come before the name.")
    .argument('<name>', 'name or id of the microVM')
    .argument('[command...]', 'shell command; several words are joined by spaces')
    .option('-t, --tty', 'give the command a terminal', false)
    .option('--print', 'print the command line instead', false)
    .option('--json', 'print the answer of the API instead')
    .passThroughOptions()
    .action(async (name: string, words: string[], flags: { readonly tty: boolean; readonly print: boolean }) => {
      const command = commandWords(words, 'vm ssh')
      const options = { signal: cli.interrupts.requested }
      const ask = (client: Mags) => Promise.all([client.microvms.sshConnection(name, options), client.microvms.get(name, options)])
      const { mags, first } = await openSession(cli, ask)
      const [connection, vm] = first
      if (cli.output.json) await cli.output.data(connection)
      else if (flags.print) await cli.output.out(`${connection.ssh_command}\n`)
      else {
        if (vm.status !== 'running' && vm.status !== 'creating') throw new CliError(notRunning(vm), { code: 'microvm_not_running' })
        const [{ microvmSshArguments }, { runSsh }] = await Promise.all([import('../microvms/microvm-ssh.ts'), import('../ssh/run-ssh.ts')])
        const exitCode = await runSsh(cli, await microvmSshArguments(cli, mags, { name, connection, terminal: flags.tty }, command))
        if (exitCode === sshFailure && vm.status === 'creating')
          await cli.output.note(`${vm.name} was still starting: 'mags vm show ${vm.name}' says when it runs`)
        return done(exitCode)
      }
      done(0)
    })
}

function notRunning({ name, status, error }: MicrovmWire): string {
  if (status === 'stopping') return `${name} is stopping; 'mags vm start ${name}' starts it once it has stopped`
  return `${name} ${status === 'error' ? `ended in error (${error ?? 'no reason known'})` : `is ${status}`}; 'mags vm start ${name}' starts it`
}

function start(cli: Cli, done: Done): Command {
  return change(cli, done, 'start', {
    summary: 'start a stopped microVM',
    passing: 'creating',
    ask: (mags, name, options) => mags.microvms.start(name, options),
  })
}

function stop(cli: Cli, done: Done): Command {
  return change(cli, done, 'stop', {
    summary: 'stop a microVM; its disk stays',
    passing: 'stopping',
    ask: (mags, name, options) => mags.microvms.stop(name, options),
  })
}

function restart(cli: Cli, done: Done): Command {
  return change(cli, done, 'restart', {
    summary: 'stop a microVM and start it again',
    passing: 'creating',
    ask: (mags, name, options) => mags.microvms.restart(name, options),
  })
}

interface Change {
  readonly summary: string
  /** What it is until it is done. */
  readonly passing: 'creating' | 'stopping'
  readonly ask: (mags: Mags, name: string, options: { readonly signal: AbortSignal }) => Promise<MicrovmStateWire>
}

function change(cli: Cli, done: Done, verb: string, { summary, passing, ask }: Change): Command {
  return jsonToo(named(new Command(verb).summary(summary)))
    .option('--detach', 'do not wait until it is done')
    .action(async (name: string, flags: { readonly detach?: boolean }) => {
      const { awaitMicrovm, sayPassing } = await import('../microvms/await-microvm.ts')
      const answer = await sayPassing(cli, name, passing, async () => {
        const { mags, first } = await openSession(cli, (client) => ask(client, name, { signal: cli.interrupts.requested }))
        if (flags.detach) return first
        const { status, error } = await awaitMicrovm(cli, mags, name, passing)
        if (error !== null) await cli.output.note(`warning: ${error}`)
        return { ...first, status }
      })
      await (cli.output.json ? cli.output.data(answer) : cli.output.out(`${name} is ${answer.status}\n`))
      done(0)
    })
}

function remove(cli: Cli, done: Done): Command {
  return jsonToo(named(new Command('delete').alias('rm').summary('delete a microVM with its disk')))
    .option('-y, --yes', 'do not ask')
    .action(async (name: string, flags: { readonly yes?: boolean }) => {
      await confirm(cli, `MicroVM '${name}' and its disk will be deleted, without a way back.`, { yes: flags.yes === true })
      const { first: answer } = await openSession(cli, (mags) => mags.microvms.delete(name, { signal: cli.interrupts.requested }))
      await (cli.output.json ? cli.output.data(answer) : cli.output.out(`${answer.message}\n`))
      done(0)
    })
}

const named = (command: Command) => command.argument('<name>', 'name or id of the microVM')
