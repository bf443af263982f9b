import type { ProgramRequest, RunningProgram, ScriptExit, TerminalSize } from '@mags/protocol'
import type { Logger } from 'pino'
import type { ServerChannel } from 'ssh2'
import type { ChannelOutput } from './channel-output.ts'
import type { LeaseHold } from './connection-lease.ts'
import { delay, whenAborted } from './delay.ts'
import { describeFailure } from './describe-failure.ts'
import { pumpInput } from './pump-input.ts'
import { signalName } from './signal-names.ts'
import type { UnreadOutput } from './unread-output.ts'

/** A job that is awake answers much sooner. */
const wakingNoteMs = 1_000
/** For the exit of a program whose sandbox is gone, which is usually told. */
const lostGraceMs = 1_000
const hangUpSignal = 1
const failureExitCode = 255

export interface ProgramRun {
  readonly channel: ServerChannel
  readonly output: ChannelOutput
  readonly unread: UnreadOutput
  readonly hold: LeaseHold
  readonly request: ProgramRequest
  /** The job's, for words. */
  readonly name: string
  /** A person sits in front of it. */
  readonly interactive: boolean
  /** The channel or its connection is gone. */
  readonly closed: AbortSignal
  /** The gateway ends: nothing is waited for. */
  readonly stopping: AbortSignal
  readonly hangUpGraceMs: number
  readonly logger: Logger
}

/** Handles of a program, also before it runs. */
export interface ProgramControl {
  resize(size: TerminalSize): void
  signal(signal: number): void
}

/**
 * Runs one program on a channel from start to exit status; settles when it is over, the sandbox's side too. Never rejects. The exit is told as sshd(8) does: at once with a terminal, after the end of all output without.
 * `onStart` gets the handles once it runs.
 */
export async function runProgram(run: ProgramRun, onStart: (control: ProgramControl) => void): Promise<void> {
  const { channel, output, unread, closed } = run
  // Work on files has questions for its output: without a reader there are none, and a signal would leave it half done.
  const drops = (source: string) => source === 'stdout' && run.request.kind !== 'sftp' && unread.drops(program)
  let program: RunningProgram | undefined
  try {
    const lease = await waitForLease(run)
    if (lease === undefined || closed.aborted) return
    program = lease.start(run.request, (source, bytes) => (drops(source) ? undefined : output.write(source, bytes)))
    onStart(program)
    pumpInput(channel, program)
    using sandbox = whenAborted(run.hold.lost)
    using client = whenAborted(closed)
    using deaf = whenAborted(unread.deaf)
    const lost = sandbox.aborted.then(() => delay(lostGraceMs)).then((): ScriptExit => ({ kind: 'sandbox-lost', exitCode: failureExitCode }))
    const exit = await Promise.race([program.exit, lost, client.aborted])
    if (exit === undefined) return await hangUp(program, run)
    await tellExit(exit, run)
    if (run.request.pty === undefined) await Promise.race([program.outputEnd, unread.exited(), deaf.aborted, lost, client.aborted])
    await output.written
  } catch (error) {
    run.logger.info({ err: error }, 'ssh: the program could not be run')
    await say(describeFailure(error, run.name), run)
    tellStatus(channel, failureExitCode)
  } finally {
    program?.close()
    run.hold[Symbol.dispose]()
    finish(channel)
    // What still waits for the client's window would wait for ever, and the end behind it.
    if (unread.deaf.aborted) quietly(() => channel.close())
  }
}

async function waitForLease(run: ProgramRun) {
  const note = setTimeout(() => void say(`waking ${run.name}…`, run), wakingNoteMs)
  if (!run.interactive) clearTimeout(note)
  using client = whenAborted(run.closed)
  try {
    return await Promise.race([run.hold.lease, client.aborted])
  } finally {
    clearTimeout(note)
  }
}

/** A client that is gone: what a terminal's hang-up does, and the end for what does not mind it. What it started in the background with nohup stays, as with sshd. */
async function hangUp(program: RunningProgram, run: ProgramRun): Promise<void> {
  program.end()
  program.signal(hangUpSignal)
  await Promise.race([program.exit, delay(run.hangUpGraceMs, run.stopping)])
}

async function tellExit(exit: ScriptExit, run: ProgramRun): Promise<void> {
  const { channel } = run
  switch (exit.kind) {
    case 'exited':
      return tellStatus(channel, exit.exitCode)
    case 'signalled': {
      if (exit.reason !== undefined) await say(`mags: ${exit.reason}`, run)
      const name = signalName(exit.exitCode - 128)
      if (name === undefined) return tellStatus(channel, exit.exitCode)
      return quietly(() => channel.exit(name, false, exit.reason ?? ''))
    }
    case 'not-started':
      await say(`mags: the program could not be started${exit.reason === undefined ? '' : `: ${exit.reason}`}`, run)
      return tellStatus(channel, exit.exitCode)
    case 'sandbox-lost':
    case 'unknown':
      await say(`mags: the sandbox of '${run.name}' is gone${exit.reason === undefined ? '' : `: ${exit.reason}`}; connect again to reach its next one`, run)
      return tellStatus(channel, failureExitCode)
  }
}

/** A line on standard error; a terminal in raw mode needs the carriage return. */
function say(words: string, run: ProgramRun): Promise<void> {
  return run.output.write('stderr', Buffer.from(`${words}${run.request.pty === undefined ? '\n' : '\r\n'}`))
}

function tellStatus(channel: ServerChannel, code: number): void {
  quietly(() => channel.exit(code))
}

function finish(channel: ServerChannel): void {
  quietly(() => {
    channel.removeAllListeners('readable')
    channel.resume()
    channel.end()
  })
}

/** ssh2 throws on a connection that broke; its end is told elsewhere. */
function quietly(act: () => void): void {
  try {
    act()
  } catch {}
}
