import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import type { Readable, Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import type { ProgramRequest, RunningProgram, ScriptExit } from '@mags/protocol'

const ptyRun = fileURLToPath(new URL('pty-run.py', import.meta.url))

/** A program of a sandbox, as one of this machine in a folder: what the host does through the agent. */
export function startLocalProgram(
  folder: string,
  request: ProgramRequest,
  onOutput: (source: 'stdout' | 'stderr', bytes: Uint8Array) => Promise<void> | void,
): RunningProgram {
  const command = request.kind === 'sftp' ? ['/usr/lib/openssh/sftp-server', '-d', folder] : request.command
  const [file = '', ...args] = request.pty === undefined ? command : ['python3', ptyRun, String(request.pty.rows), String(request.pty.cols), ...command]
  const child = spawn(file, args, {
    cwd: folder,
    env: { PATH: process.env.PATH, HOME: folder, ...request.environment },
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
  })
  const { stdin, stdout, stderr } = child
  const control = child.stdio[3] as Writable
  for (const stream of [stdin, control]) stream.on('error', () => undefined)
  const take = async (source: 'stdout' | 'stderr', stream: Readable) => {
    for await (const bytes of stream) await onOutput(source, bytes)
  }
  const taken = [take('stdout', stdout), take('stderr', stderr)]
  const outputEnd = Promise.allSettled(taken).then(() => undefined)
  const exited = new Promise<ScriptExit>((resolve) => {
    child.once('error', (error) => resolve({ kind: 'not-started', exitCode: 127, reason: error.message }))
    child.once('exit', (code, signal) =>
      resolve(signal === null ? { kind: 'exited', exitCode: code ?? 0 } : { kind: 'signalled', exitCode: 128 + constants.signals[signal] }),
    )
  })
  const kill = (signal: number) => {
    try {
      if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) process.kill(-child.pid, signal)
    } catch {}
  }
  return {
    // "its output so far was taken": as much as can be known of a pipe. What a background process holds open is not waited for.
    exit: exited.then(async (exit) => {
      await Promise.race([outputEnd, new Promise((resolve) => setTimeout(resolve, 200))])
      return exit
    }),
    outputEnd,
    write: (bytes) =>
      new Promise((resolve, reject) => {
        stdin.write(Buffer.from(bytes), (error) => (error ? reject(error) : resolve()))
      }),
    end: () => void stdin.end(),
    signal: kill,
    resize: ({ rows, cols }) => void control.write(`${rows} ${cols}\n`),
    close: () => {
      kill(constants.signals.SIGKILL)
      stdout.destroy()
      stderr.destroy()
    },
  }
}
