import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { expect } from 'vitest'
import type { AgentExecRequest, AgentExit, AgentOutput } from '../agent/connection.ts'
import { AgentSandboxFiles } from '../sandboxes/sandbox-files.ts'
import type { Sandbox } from './driver.ts'

/** What programs of the suite find. */
export const environment = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/root' }

export interface Outcome {
  readonly exit: AgentExit
  readonly stdout: string
  readonly stderr: string
  readonly stdoutBytes: Buffer
}

export function sh(program: string, request: Partial<AgentExecRequest> = {}): AgentExecRequest {
  return { argv: ['/bin/sh', '-c', program], env: environment, cwd: '/root', ...request }
}

/** Runs a program to its exit with both outputs; each piece must continue its stream. */
export async function finish(sandbox: Sandbox, request: AgentExecRequest, stdin?: Uint8Array): Promise<Outcome> {
  const pieces = { stdout: [] as Buffer[], stderr: [] as Buffer[] }
  const sizes = { stdout: 0, stderr: 0 }
  const exec = sandbox.agent.exec(stdin ? { ...request, stdin: true } : request, (stream, offset, bytes) => {
    expect(offset).toBe(sizes[stream])
    sizes[stream] += bytes.length
    pieces[stream].push(Buffer.from(bytes))
    return undefined
  })
  try {
    if (stdin) {
      await exec.writeStdin(stdin)
      exec.endStdin()
    }
    const exit = await exec.exit
    const stdoutBytes = Buffer.concat(pieces.stdout)
    return { exit, stdoutBytes, stdout: stdoutBytes.toString(), stderr: Buffer.concat(pieces.stderr).toString() }
  } finally {
    exec.close()
  }
}

/** The sandbox's files through its agent, with whole contents at once. */
export function filesOf(sandbox: Sandbox) {
  const files = new AgentSandboxFiles(sandbox.agent)
  return {
    stat: (path: string) => files.stat(path),
    list: (path: string, limit: number) => files.list(path, limit),
    remove: (path: string, options: { readonly recursive: boolean }) => files.remove(path, options),
    get: (path: string, range?: { readonly offset: number; readonly lengthBytes: number }) => buffer(files.read(path, range)),
    put: (path: string, content: Uint8Array | string) => files.write(path, Readable.from([Buffer.from(content as string)])),
  }
}

/** Output as text that a test can wait on. */
export function transcript() {
  let text = ''
  const waiting = new Set<() => void>()
  const output: AgentOutput = (_stream, _offset, bytes) => {
    text += bytes.toString()
    for (const wake of [...waiting]) wake()
    return undefined
  }
  const until = async (condition: (text: string) => boolean) => {
    while (!condition(text)) {
      await new Promise<void>((resolve) => {
        const wake = () => {
          waiting.delete(wake)
          resolve()
        }
        waiting.add(wake)
      })
    }
    return text
  }
  return { output, until, text: () => text }
}

export function digest(bytes: Uint8Array) {
  return createHash('sha256').update(bytes).digest('hex')
}
