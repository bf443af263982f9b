import type { ChildProcess } from 'node:child_process'
import { open, readdir } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { MagsError } from '@mags/protocol'
import { identifyProcess, isAlive, type ProcessIdentity } from '../../recover/process-identity.ts'
import { startResident } from '../../run.ts'
import { consoleBytes, consoleId, type MachineConfig, qemuArguments } from './command-line.ts'
import { DiskStall } from './disk-stall.ts'
import { connectQmp, type QmpConnection, type QmpEvent } from './qmp.ts'

const threadsTimeoutMs = 5_000

export const qemuProgram = 'qemu-system-x86_64'

export interface StartMachineOptions {
  /** At a low priority. */
  readonly background?: boolean
  readonly config: MachineConfig
  /** Network namespace QEMU opens its tap in. */
  readonly netnsPath?: string
  /** Inherited by QEMU as 3, 4, … */
  readonly fds?: readonly number[]
  /** QEMU's own words. */
  readonly logFile: string
  /** Until QEMU answers on its control socket. */
  readonly timeoutMs: number
  /** Called with the process before anything is asked of it: limits and records belong here. */
  readonly onProcess?: (process: ProcessIdentity) => Promise<void>
}

/** What is seen of a QEMU from outside. */
interface MachineWatch {
  /** Settles when the process ended, with why. */
  readonly ended: Promise<string>
  /** Settles when its guest halted. */
  readonly halted: Promise<QmpEvent>
  readonly diskStall: DiskStall
}

/**
 * A QEMU process and its control connection.
 *
 *     running ──process ends, `kill`──▶ ended
 *        └──guest resets, powers off or panics──▶ halted (the process waits to be killed)
 */
export class Machine {
  readonly process: ProcessIdentity
  readonly qmp: QmpConnection
  /** Settles when the guest halted or QEMU ended, with what is known of why. */
  readonly stopped: Promise<string>
  /** Whether it stands still because its disk cannot be written. */
  readonly diskStall: DiskStall
  readonly #ended: Promise<string>
  #console = ''

  constructor(process: ProcessIdentity, qmp: QmpConnection, { ended, halted, diskStall }: MachineWatch) {
    this.diskStall = diskStall
    this.process = process
    this.qmp = qmp
    this.#ended = ended
    this.stopped = Promise.race([ended, halted.then((event) => this.#lastWordsOfGuest(event))])
  }

  /** Ends QEMU without its help and waits until the kernel has it no more. */
  async kill(): Promise<void> {
    this.qmp.close()
    await killProcess(this.process)
    // Its first thread may be gone before the others are; the parent hears of the last.
    const { promise: late, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, 5_000)
    await Promise.race([this.#ended, late])
    clearTimeout(timer)
  }

  async #lastWordsOfGuest(event: QmpEvent): Promise<string> {
    const words = guestWords(await this.readConsole())
    return `the guest ${event.event === 'GUEST_PANICKED' ? 'panicked' : 'shut down'}${words === '' ? '' : `: ${words}`}`
  }

  /** The end of what the guest wrote to its console (its kernel's errors, too), as far as QEMU can still be asked; hostile text, made printable and cut. */
  async readConsole(): Promise<string> {
    // Reading takes it out of QEMU's ring, so it is kept here.
    const text = await this.qmp.execute('ringbuf-read', { device: consoleId, size: consoleBytes }).catch(() => '')
    if (typeof text === 'string') this.#console = (this.#console + printable(text)).slice(-consoleBytes)
    return this.#console
  }
}

/** Starts QEMU in a session of its own, so that it outlives the daemon, and connects to it. Rejects with MagsError 'sandbox_failed' and its last words. */
export async function startMachine(options: StartMachineOptions): Promise<Machine> {
  const { config, netnsPath, timeoutMs } = options
  const inside = [...(options.background ? ['nice', '-n', '10'] : []), ...(netnsPath === undefined ? [] : ['nsenter', `--net=${netnsPath}`, '--'])]
  const [command = qemuProgram, ...args] = [...inside, qemuProgram, ...qemuArguments(config)]
  const child = startResident(command, args, { logFile: options.logFile, detached: true, cwd: '/', fds: options.fds ?? [] })
  const ended = endOfChild(child, options.logFile)
  const process = child.pid === undefined ? undefined : await identifyProcess(child.pid)
  if (process === undefined) throw new MagsError('sandbox_failed', `${qemuProgram} did not start: ${await ended}`)
  try {
    await options.onProcess?.(process)
    const { onEvent, halted, diskStall } = watchEvents()
    const qmp = await connectWhenListening(config.qmpPath, ended, timeoutMs, onEvent)
    diskStall.follow(qmp)
    return new Machine(process, qmp, { ended, halted, diskStall })
  } catch (error) {
    await killProcess(process)
    // One that ended at once could not be given its limits; why it ended says more.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    throw new MagsError('sandbox_failed', `a virtual machine could not be started: ${await ended}`, { cause: error })
  }
}

/** Takes back a QEMU that an earlier daemon started; undefined when it is dead or its guest is. */
export async function adoptMachine(process: ProcessIdentity, qmpPath: string, timeoutMs: number): Promise<Machine | undefined> {
  if (!(await isAlive(process))) return undefined
  const { onEvent, halted, diskStall } = watchEvents()
  const qmp = await connectQmp(qmpPath, { timeoutMs, onEvent }).catch(() => undefined)
  if (qmp === undefined) return undefined
  const state = await restingState(qmp, timeoutMs)
  if (!['running', 'paused', 'postmigrate', stalledState].includes(state)) {
    qmp.close()
    return undefined
  }
  diskStall.follow(qmp, { stalled: state === stalledState })
  const ended = qmp.closed.then(async () => {
    while (await isAlive(process)) await delay(5)
    return 'its QEMU process ended'
  })
  return new Machine(process, qmp, { ended, halted, diskStall })
}

/** RunState of a machine that stands still because its disk cannot be written. */
const stalledState = 'io-error'

/** Whether its guest runs or is stopped, and why, as RunState has it. One whose state was just being saved as the last daemon ended gives that up by itself, for want of who takes it. */
async function restingState(qmp: QmpConnection, timeoutMs: number): Promise<string> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    const answer = (await qmp.execute('query-status').catch(() => undefined)) as { status?: string } | undefined
    if (answer?.status !== 'finish-migrate' || performance.now() > deadline) return answer?.status ?? ''
    await delay(5)
  }
}

/** SIGKILL to that very process, waiting until it is gone. */
export async function killProcess(target: ProcessIdentity): Promise<void> {
  for (let wait = 1; await isAlive(target); wait = Math.min(wait * 2, 50)) {
    try {
      process.kill(target.pid, 'SIGKILL')
    } catch {
      break
    }
    await delay(wait)
  }
  // Its first thread may be gone before the others are, and they have its tap and disk open still.
  const deadline = performance.now() + threadsTimeoutMs
  while ((await threadsOf(target)) > 1 && performance.now() < deadline) await delay(1)
}

/** How many it has, its first one included, which stays as a zombie until all others are gone. */
async function threadsOf({ pid }: ProcessIdentity): Promise<number> {
  return (await readdir(`/proc/${pid}/task`).catch(() => [])).length
}

/** Few enough of them for an error message. */
export function lastWords(text: string): string {
  return text.trim().slice(-800)
}

/** What a guest's console says of its end: the lines that name the cause when there are any, else the last ones. */
export function guestWords(console: string): string {
  const causes = console.split('\n').filter((line) => /^agent: |Kernel panic - not syncing|Out of memory: Killed process/.test(line))
  return lastWords(causes.length === 0 ? console : causes.slice(-4).join('\n'))
}

/** Console and log text comes from a guest: nothing but printable ASCII goes into our messages. */
export function printable(text: string): string {
  return text.replaceAll(/[^\x20-\x7e\n]/g, '').replaceAll(/\n{2,}/g, '\n')
}

const haltEvents = new Set(['SHUTDOWN', 'GUEST_PANICKED'])

function watchEvents() {
  const halted = Promise.withResolvers<QmpEvent>()
  const diskStall = new DiskStall()
  const onEvent = (event: QmpEvent) => {
    if (haltEvents.has(event.event)) halted.resolve(event)
    diskStall.note(event)
  }
  return { onEvent, halted: halted.promise, diskStall }
}

function endOfChild(child: ChildProcess, logFile: string): Promise<string> {
  return new Promise((resolve) => {
    child.on('error', (error) => resolve(error.message))
    child.on('exit', (code, signal) => {
      const how = signal === null ? `exit ${code}` : signal
      tail(logFile).then(
        (words) => resolve(`QEMU ended (${how})${words === '' ? '' : `: ${words}`}`),
        () => resolve(`QEMU ended (${how})`),
      )
    })
  })
}

/** The socket appears when QEMU has read its arguments; there is no event for it. */
async function connectWhenListening(path: string, ended: Promise<string>, timeoutMs: number, onEvent: (event: QmpEvent) => void): Promise<QmpConnection> {
  const deadline = performance.now() + timeoutMs
  let why: string | undefined
  ended.then((words) => {
    why = words
  })
  for (;;) {
    try {
      return await connectQmp(path, { timeoutMs, onEvent })
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      // A QEMU that just died takes its greeting along; its last words are better than ours.
      if (code !== 'ENOENT' && code !== 'ECONNREFUSED') why ??= await Promise.race([ended, delay(200, `${error}`)])
      if (why !== undefined) throw new MagsError('sandbox_failed', `a virtual machine could not be started: ${why}`)
      if (performance.now() > deadline) throw new MagsError('sandbox_failed', `QEMU did not answer within ${timeoutMs} ms`)
      await delay(2)
    }
  }
}

async function tail(path: string): Promise<string> {
  await using file = await open(path, 'r')
  const { size } = await file.stat()
  const length = Math.min(size, 2_000)
  const { buffer } = await file.read(Buffer.alloc(length), 0, length, size - length)
  const lines = printable(buffer.toString('latin1')).split('\n')
  // Said of every template: its card has no wire on purpose.
  return lastWords(lines.filter((line) => !line.includes('is not connected to host network')).join('\n'))
}
