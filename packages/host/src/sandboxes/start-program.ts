import { constants } from 'node:os'
import { MagsError, type ProgramRequest, type RunningProgram, type ScriptExit, type TerminalSize } from '@mags/protocol'
import type { AgentExec, AgentOutput } from '../agent/connection.ts'
import { exitCodeOfSignal, explainExit, type ProgramSandbox } from './explain-exit.ts'
import { sandboxEnvironment } from './script-environment.ts'
import { startDirectory } from './start-directory.ts'

/** signal(7): the highest there is, SIGRTMAX. */
const signalMax = 64
const terminalSizeMax = 0xffff

/**
 * One more program with its input open; see `RunningSandbox.start`. A failing `onOutput` kills it.
 * @throws MagsError 'bad_request' or 'too_large' for a request that no sandbox could take.
 */
export function startProgram(
  sandbox: ProgramSandbox,
  request: ProgramRequest,
  onOutput: (source: 'stdout' | 'stderr', bytes: Uint8Array) => Promise<void> | void,
): RunningProgram {
  /** Why it was ended from here: its exit is then no longer told by the sandbox. */
  const ended = Promise.withResolvers<ScriptExit>()
  const endedBy = (signal: number, reason: string) => ended.resolve({ kind: 'signalled', exitCode: exitCodeOfSignal(signal), reason })
  const failed = (error: unknown): never => {
    program.signal(constants.signals.SIGKILL)
    endedBy(constants.signals.SIGKILL, `its output could not be taken: ${error instanceof Error ? error.message : String(error)}`)
    throw error
  }
  const program = open(sandbox, request, (stream, _offset, bytes) => {
    try {
      return onOutput(stream, bytes)?.then(() => undefined, failed)
    } catch (error) {
      return failed(error)
    }
  })
  let over = false
  const noted = () => {
    over = true
  }
  program.exit.then(noted, noted)
  const name = request.kind === 'command' ? (request.command[0] ?? '') : 'sftp'
  return {
    exit: Promise.race([ended.promise, explainExit(sandbox, name, program.exit)]),
    outputEnd: program.eof.then(
      () => undefined,
      () => undefined,
    ),
    write: (bytes) => program.writeStdin(bytes),
    end: () => program.endStdin(),
    signal: (signal) => {
      if (!Number.isInteger(signal) || signal < 1 || signal > signalMax) throw new MagsError('bad_request', `${signal} is not a signal`)
      program.signal(signal)
    },
    resize: (size) => {
      const { rows, cols } = boundedSize(size)
      program.resize(rows, cols)
    },
    close: () => {
      const wasOver = over
      program.exit.catch(() => {
        if (!wasOver) endedBy(request.pty ? constants.signals.SIGHUP : constants.signals.SIGKILL, 'it was closed before it ended')
      })
      program.close()
    },
  }
}

function open(sandbox: ProgramSandbox, request: ProgramRequest, output: AgentOutput): AgentExec {
  const cwd = request.cwd ?? startDirectory
  if (request.kind === 'sftp') return sandbox.agent.file({ op: 'sftp', path: cwd }, output)
  const argv = request.command
  return sandbox.agent.exec(
    { argv, env: sandboxEnvironment(sandbox.environment, request.environment), cwd, stdin: true, ...(request.pty ? { pty: boundedSize(request.pty) } : {}) },
    output,
  )
}

/** What fits the kernel's winsize. */
function boundedSize({ rows, cols }: TerminalSize): TerminalSize {
  const bounded = (count: number) => Math.min(terminalSizeMax, Math.max(0, Math.trunc(count) || 0))
  return { rows: bounded(rows), cols: bounded(cols) }
}
