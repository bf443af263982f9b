import { spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type ResolvedConfig, wait } from '@mags/sdk'
import type { Cli } from '../cli.ts'
import { CliError } from '../exit/cli-error.ts'
import { lastLines } from './last-lines.ts'
import { clientFor } from './session.ts'
import { claimStart } from './start-claim.ts'

/** The program that becomes the daemon. */
const thisProgram: readonly string[] = [process.execPath, join(import.meta.dirname, '..', 'main.js'), 'server']

const deadlineMs = 60_000
const progressEveryMs = 5_000

/**
 * Starts the daemon in the background and waits until it answers. Of several that want this at once one starts it and the others wait.
 * `args` are flags of `mags server`. Throws CliError with the daemon's last words when it ends or does not answer within a minute.
 */
export async function startLocalServer(
  cli: Cli,
  config: Pick<ResolvedConfig, 'apiUrl' | 'configFile'>,
  args: readonly string[] = ['--port', new URL(config.apiUrl).port || '80'],
  program = thisProgram,
): Promise<void> {
  const folder = dirname(config.configFile)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const logFile = join(folder, 'server.log')
  const beganMs = performance.now()
  const mags = clientFor(config, { maxRetries: 0, timeout: 2_000 })
  // What earlier servers wrote is not about this start.
  const fromByte = statSync(logFile, { throwIfNoEntry: false })?.size ?? 0
  const waiting: Waiting = { cli, logFile, fromByte, apiUrl: config.apiUrl, beganMs, nextProgressMs: progressEveryMs }
  for (;;) {
    using claim = claimStart(join(folder, 'server.starting'))
    if (claim === undefined) {
      if (await answers(mags)) return
      await pause(waiting)
      continue
    }
    // Another may have started it between our first call and the claim.
    if (await answers(mags)) return
    await cli.output.note(`no server answers at ${config.apiUrl}: starting one on this machine (its log: ${logFile})`)
    const child = spawnServer(logFile, [...program, ...args])
    let ended: string | undefined
    child.on('error', (error) => {
      ended = error.message
    })
    child.on('exit', (code, signal) => {
      ended = code === null ? `signal ${signal}` : `exit code ${code}`
    })
    while (!(await answers(mags))) {
      // A daemon that found another one starting gives way: then that one is about to answer.
      if (ended !== undefined && !(await answersSoon(mags))) {
        throw failure(`the server ended while starting (${ended})`, waiting)
      }
      await pause(waiting)
    }
    child.unref()
    await cli.output.note(`server is up after ${seconds(beganMs)} s and stays in the background (process ${child.pid}; 'kill ${child.pid}' ends it)`)
    return
  }
}

interface Waiting {
  readonly cli: Cli
  readonly logFile: string
  readonly fromByte: number
  readonly apiUrl: string
  readonly beganMs: number
  nextProgressMs: number
}

async function pause(waiting: Waiting): Promise<void> {
  const elapsedMs = performance.now() - waiting.beganMs
  if (elapsedMs > deadlineMs) throw failure(`no server answered at ${waiting.apiUrl} within ${deadlineMs / 1000} s`, waiting)
  if (elapsedMs > waiting.nextProgressMs) {
    waiting.nextProgressMs += progressEveryMs
    const [lastLine] = lastLines(waiting.logFile, 1, waiting.fromByte)
    await waiting.cli.output.note(`still starting (${seconds(waiting.beganMs)} s)${lastLine === undefined ? '' : `: ${lastLine}`}`)
  }
  await wait(elapsedMs < 1_000 ? 25 : 100, waiting.cli.interrupts.requested)
}

function spawnServer(logFile: string, [command = '', ...args]: readonly string[]) {
  const log = openSync(logFile, 'a', 0o600)
  try {
    return spawn(command, args, { detached: true, stdio: ['ignore', log, log], cwd: '/' })
  } finally {
    closeSync(log)
  }
}

async function answers(mags: ReturnType<typeof clientFor>): Promise<boolean> {
  try {
    return (await mags.health()).status === 'ok'
  } catch {
    return false
  }
}

async function answersSoon(mags: ReturnType<typeof clientFor>): Promise<boolean> {
  for (let tries = 0; tries < 20; tries += 1) {
    if (await answers(mags)) return true
    await wait(100)
  }
  return false
}

function failure(what: string, { logFile, fromByte }: Pick<Waiting, 'logFile' | 'fromByte'>): CliError {
  const words = lastLines(logFile, 12, fromByte).map((line) => `\n  ${line}`)
  return new CliError(`${what}. Its last words (${logFile}):${words.join('') || '\n  (none)'}\n'mags doctor' checks the machine.`, {
    code: 'server_start_failed',
  })
}

function seconds(sinceMs: number): string {
  return ((performance.now() - sinceMs) / 1000).toFixed(1)
}
