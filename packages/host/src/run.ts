import { type SpawnOptions, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { setPriority } from 'node:os'

/** The only file that spawns programs from this process (busy paths have the mounter do it). Arguments always go as a vector, never through a shell. */

export interface RunResult {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  /** Written to standard input, which is then closed. Without it the program reads from an empty pipe. */
  readonly input?: string | Uint8Array
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
  /** The program is killed after this; default 60,000. */
  readonly timeoutMs?: number
  /** Background work: the program runs at a lower CPU priority. */
  readonly background?: boolean
  /** Output behind this is dropped; default 1 MiB. */
  readonly maxOutputBytes?: number
}

/** A program that ended with another code than 0; the message carries its last words. */
export class RunError extends Error {
  readonly result: RunResult
  constructor(command: string, args: readonly string[], result: RunResult) {
    const words = (result.stderr.trim() || result.stdout.trim()).split('\n').slice(-6).join('\n')
    super(`${command} ${args.slice(0, 4).join(' ')}: exit ${result.code}${words === '' ? '' : `: ${words}`}`)
    this.name = 'RunError'
    this.result = result
  }
}

const outputLimit = 1 << 20

/** Runs a program to its end. Resolves whatever its exit code; rejects when it cannot be started or runs over its time. */
export function runAny(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], cwd: options.cwd, env: options.env ?? process.env })
    if (options.background && child.pid) lowerPriority(child.pid)
    const collected = { stdout: [] as Buffer[], stderr: [] as Buffer[] }
    const sizes = { stdout: 0, stderr: 0 }
    for (const name of ['stdout', 'stderr'] as const) {
      child[name].on('data', (bytes: Buffer) => {
        sizes[name] += bytes.length
        if (sizes[name] <= (options.maxOutputBytes ?? outputLimit)) collected[name].push(bytes)
      })
    }
    const timeoutMs = options.timeoutMs ?? 60_000
    const timer = setTimeout(() => {
      child.kill('SIGKILL')
      reject(new Error(`${command} ${args.slice(0, 4).join(' ')}: no end within ${timeoutMs} ms`))
    }, timeoutMs)
    child.on('error', (error) => {
      clearTimeout(timer)
      reject(error)
    })
    child.on('close', (code, signal) => {
      clearTimeout(timer)
      resolve({
        code: code ?? (signal === null ? 1 : 128),
        stdout: Buffer.concat(collected.stdout).toString('utf8'),
        stderr: Buffer.concat(collected.stderr).toString('utf8'),
      })
    })
    child.stdin.on('error', () => undefined)
    child.stdin.end(options.input)
  })
}

/** Runs a program that must end with 0; otherwise rejects with {@link RunError}. */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const result = await runAny(command, args, options)
  if (result.code !== 0) throw new RunError(command, args, result)
  return result
}

export interface ResidentOptions {
  /** Standard output and error are appended here. */
  readonly logFile: string
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
  /** Survives the daemon: own session, not waited for. */
  readonly detached?: boolean
  readonly stdin?: 'pipe' | 'ignore'
  readonly stdout?: 'pipe' | 'log'
  /** Open file descriptors the program inherits as 3, 4, …; ours stay open and are the caller's to close. */
  readonly fds?: readonly number[]
  /** A channel for messages and descriptors (child_process, option `ipc`) is descriptor 3, before those. */
  readonly ipc?: boolean
}

/** Starts a program that stays. The caller puts its end on its undo stack at once. */
export function startResident(command: string, args: readonly string[], options: ResidentOptions) {
  const log = openSync(options.logFile, 'a', 0o600)
  try {
    const spawnOptions: SpawnOptions = {
      stdio: [options.stdin ?? 'ignore', options.stdout === 'pipe' ? 'pipe' : log, log, ...(options.ipc ? (['ipc'] as const) : []), ...(options.fds ?? [])],
      detached: options.detached ?? false,
    }
    if (options.cwd !== undefined) spawnOptions.cwd = options.cwd
    if (options.env !== undefined) spawnOptions.env = { ...options.env }
    const child = spawn(command, args, spawnOptions)
    if (options.detached) child.unref()
    return child
  } finally {
    closeSync(log)
  }
}

function lowerPriority(pid: number) {
  try {
    setPriority(pid, 10)
  } catch {
    // It may have ended already.
  }
}
