import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Mags } from '@mags/sdk'

/** The checkout's root. */
export const root = fileURLToPath(new URL('../..', import.meta.url))

/** A daemon of its own for one test or benchmark: own data folder, own port, own home. */
export interface TestDaemon extends AsyncDisposable {
  readonly url: string
  readonly token: string
  readonly home: string
  readonly dataDir: string
  /** Six hex digits that are part of everything it takes from the host. */
  readonly instance: string
  readonly pid: number
  /** What it wrote so far. */
  log(): Promise<string>
  /** SIGKILL, as a crash would. */
  crash(): Promise<void>
  /** SIGTERM, and its exit code. */
  stop(): Promise<number>
}

export interface DaemonPlace {
  readonly home: string
  readonly dataDir: string
}

const startTimeoutMs = 180_000

/** Folders for a daemon that is started more than once. Data lies on a real disk, not on tmpfs: layers and disks need one. */
export async function makePlace(): Promise<DaemonPlace & AsyncDisposable> {
  const home = await mkdtemp(join(tmpdir(), 'mags-home-'))
  const dataDir = await mkdtemp('/var/tmp/mags-data-')
  return {
    home,
    dataDir,
    async [Symbol.asyncDispose]() {
      await Promise.all([home, dataDir].map((dir) => rm(dir, { recursive: true, force: true })))
    },
  }
}

/** Starts `mags server` on a free port and waits until it is ready. Without a place it makes one, and removes it at the end. */
export async function startDaemon(environment: Record<string, string> = {}, place?: DaemonPlace): Promise<TestDaemon> {
  await using undo = new AsyncDisposableStack()
  const { home, dataDir } = place ?? undo.use(await makePlace())
  const configFile = join(home, '.mags', 'config.json')
  await rm(configFile, { force: true })
  const logFile = join(home, 'server.log')
  const log = openSync(logFile, 'a')
  const child = spawn(process.execPath, [join(root, 'packages/cli/dist/main.js'), 'server', '--port', '0', '--data-dir', dataDir], {
    stdio: ['ignore', log, log],
    env: { ...definedEnvironment(), HOME: home, ...environment },
  })
  closeSync(log)
  undo.defer(() => end(child, 'SIGTERM').then(() => undefined))
  let stopJobs: () => Promise<void> = async () => undefined
  // Persistent jobs would live on, as they should.
  undo.defer(async () => {
    if (child.exitCode === null && child.signalCode === null) await stopJobs()
  })
  const readLog = () => readFile(logFile, 'utf8')
  const config = await untilReady(child, configFile, readLog)
  const instance = /"instance":"([0-9a-f]{6})"/.exec(await readLog())?.[1]
  if (instance === undefined) throw new Error(`the server did not say which instance it is: ${await readLog()}`)
  stopJobs = () => stopUnfinished(new Mags({ apiUrl: config.api_url, apiToken: config.api_token }))
  const kept = undo.move()
  return {
    instance,
    url: config.api_url,
    token: config.api_token,
    home,
    dataDir,
    pid: child.pid ?? 0,
    log: readLog,
    crash: () => end(child, 'SIGKILL').then(() => undefined),
    stop: () => end(child, 'SIGTERM'),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

async function stopUnfinished(mags: Mags) {
  for (const status of ['pending', 'running', 'sleeping'] as const) {
    const { jobs } = await mags.list({ status, pageSize: 100 })
    await Promise.all(jobs.map((job) => mags.stop(job.request_id)))
  }
  const [defined, machines] = await Promise.all([mags.jobs.list({ pageSize: 100 }), mags.microvms.list({ pageSize: 100 })])
  await Promise.all([...defined.jobs.map((job) => mags.jobs.cancel(job.id)), ...machines.microvms.map((vm) => mags.microvms.delete(vm.id))])
}

async function untilReady(child: ChildProcess, configFile: string, readLog: () => Promise<string>) {
  const deadline = performance.now() + startTimeoutMs
  while (performance.now() < deadline) {
    if (child.exitCode !== null) throw new Error(`the server ended: ${await readLog()}`)
    const text = await readFile(configFile, 'utf8').catch(() => undefined)
    if (text !== undefined) return JSON.parse(text) as { api_url: string; api_token: string }
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new Error(`the server was not ready in time: ${await readLog()}`)
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<number> {
  if (child.exitCode === null && child.signalCode === null) {
    const exit = once(child, 'exit')
    child.kill(signal)
    await exit
  }
  return child.exitCode ?? 128
}

function definedEnvironment(): Record<string, string> {
  return Object.fromEntries(Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined))
}
