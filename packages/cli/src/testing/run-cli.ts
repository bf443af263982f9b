import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FakeServer } from './fake-server.ts'

const root = join(import.meta.dirname, '../../../..')
const mainFile = join(root, 'packages/cli/dist/main.js')

/** Builds the program as users run it. */
export function buildCli(): void {
  execFileSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-b', 'packages/cli'], { cwd: root, stdio: 'inherit' })
}

export interface CliRun {
  readonly child: ChildProcess
  /** Settles with what it wrote and how it ended. */
  readonly ended: Promise<{ code: number | null; stdout: Buffer; stderr: string }>
  /** Settles once standard error holds `text`. */
  stderrHas(text: string): Promise<void>
}

/** A home directory that nothing has been written to. */
export async function newHome() {
  const path = await mkdtemp(join(tmpdir(), 'mags-cli-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

export interface CliStart {
  readonly server?: FakeServer
  readonly home: string
  readonly env?: Readonly<Record<string, string>>
  /** Standard input; absent: none. */
  readonly input?: string
}

/** Starts the built program in a child process. */
export function startCli(args: readonly string[], { server, home, env, input }: CliStart): CliRun {
  const address: Record<string, string> = server === undefined ? {} : { MAGS_API_URL: server.apiUrl, MAGS_API_TOKEN: server.token }
  const child = spawn(process.execPath, [mainFile, ...args], {
    env: { PATH: process.env.PATH ?? '', HOME: home, ...address, ...env },
    stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
  })
  child.stdin?.end(input)
  const stdout: Buffer[] = []
  let stderr = ''
  child.stdout?.on('data', (part: Buffer) => stdout.push(part))
  child.stderr?.on('data', (part: Buffer) => {
    stderr += part.toString()
  })
  return {
    child,
    ended: once(child, 'close').then(([code]) => ({ code: code as number | null, stdout: Buffer.concat(stdout), stderr })),
    stderrHas: async (text) => {
      while (!stderr.includes(text)) await once(child.stderr ?? child, 'data')
    },
  }
}

/** Runs it to its end. */
export async function runCli(args: readonly string[], start: CliStart) {
  const { code, stdout, stderr } = await startCli(args, start).ended
  return { code, stdout: stdout.toString(), stderr }
}
