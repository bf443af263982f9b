import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { root } from './daemon.ts'

export interface Finished {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface CommandOptions {
  readonly env?: Readonly<Record<string, string>>
  /** Standard input; absent: /dev/null. */
  readonly input?: string
  /** Called with all standard output so far whenever some comes; gets the means to signal the program. */
  readonly onStdout?: (text: string, kill: (signal: NodeJS.Signals) => void) => void
}

/** Runs the built `mags` command to its end. */
export async function runMags(args: readonly string[], { env = {}, input, onStdout }: CommandOptions = {}): Promise<Finished> {
  const child = spawn(process.execPath, [join(root, 'packages/cli/dist/main.js'), ...args], {
    env: { ...process.env, MAGS_API_URL: '', MAGS_API_TOKEN: '', MAGS_TOKEN: '', ...env },
    stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  child.stdout?.on('data', (bytes: Buffer) => {
    stdout += bytes
    onStdout?.(stdout, (signal) => child.kill(signal))
  })
  child.stderr?.on('data', (bytes: Buffer) => {
    stderr += bytes
  })
  child.stdin?.end(input)
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null]
  return { code, signal, stdout, stderr }
}
