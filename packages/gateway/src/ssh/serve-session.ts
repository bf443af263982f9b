import type { ProgramRequest } from '@mags/protocol'
import type { Logger } from 'pino'
import type { ServerChannel, Session } from 'ssh2'
import { ChannelOutput } from './channel-output.ts'
import type { Congestion } from './congestion.ts'
import type { LeaseHold } from './connection-lease.ts'
import { type ProgramControl, runProgram } from './run-program.ts'
import { SessionEnvironment } from './session-environment.ts'
import { signalNumber } from './signal-names.ts'
import { onEndOfWrite, packetSizeOf } from './ssh2-internals.ts'
import { terminalName, terminalSize } from './terminal-request.ts'
import { UnreadOutput } from './unread-output.ts'

/** OpenSSH's client takes 32 KiB; every packet costs, and RFC 4253 has everybody take 32 KiB. */
export const packetSizeMin = 256

/** As sshd(8) with the usual shell of root: bash where the image has it, for commands too. */
const withShell = (how: string, ...operands: readonly string[]) => [
  '/bin/sh',
  '-c',
  `export SHELL=/bin/sh; if [ -x /bin/bash ]; then SHELL=/bin/bash; fi; exec "$SHELL" ${how}`,
  'sh',
  ...operands,
]
const loginShell = withShell('-l')
const shellCommand = (command: string) => withShell('-c "$1"', command)

export interface SessionContext {
  readonly hold: LeaseHold
  readonly congestion: Congestion
  readonly name: string
  /** Set for every program. */
  readonly environment: Readonly<Record<string, string>>
  /** Its connection is gone. */
  readonly disconnected: AbortSignal
  readonly stopping: AbortSignal
  readonly hangUpGraceMs: number
  readonly logger: Logger
  /** The client has closed the channel. */
  readonly freed: () => void
  /** Counts what waits to be read on it. */
  readonly track: (channel: ServerChannel) => Disposable
  /** Ends a connection that breaks the rules. */
  readonly refuse: (words: string) => void
}

type Kind = 'shell' | 'exec' | 'sftp'

/**
 * One session channel (RFC 4254, 6): settings (`env`, `pty-req`), then one program; `asked` → `running` → `closed`. Agent and X11 forwarding have no listener and are refused by ssh2. Settles when channel and program are
 * both over.
 */
export async function serveSession(session: Session, context: SessionContext): Promise<void> {
  const closing = new AbortController()
  const closed = Promise.withResolvers<void>()
  const close = () => {
    context.freed()
    closing.abort()
    closed.resolve()
  }
  session.once('close', close)
  context.disconnected.addEventListener('abort', close, { once: true })
  if (context.disconnected.aborted) close()
  using cleanup = new DisposableStack()
  cleanup.use(context.hold)
  cleanup.defer(() => context.disconnected.removeEventListener('abort', close))
  const environment = new SessionEnvironment()
  let terminal: { name: string; rows: number; cols: number } | undefined
  let control: ProgramControl | undefined
  let running: Promise<void> | undefined
  const early: number[] = []
  const unread = new UnreadOutput()

  const start = (kind: Kind, accept: () => ServerChannel | undefined, command: readonly string[]) => {
    if (running !== undefined) return
    const channel = accept()
    if (channel === undefined) return
    if (packetSizeOf(channel) < packetSizeMin) return context.refuse('the packet size of a channel is too small')
    cleanup.use(context.track(channel))
    const shared = {
      environment: { ...environment.values, ...(terminal === undefined ? {} : { TERM: terminal.name }), ...context.environment },
      ...(terminal === undefined || kind === 'sftp' ? {} : { pty: { rows: terminal.rows, cols: terminal.cols } }),
    }
    const request: ProgramRequest = kind === 'sftp' ? { kind: 'sftp', ...shared } : { kind: 'command', command, ...shared }
    const output = new ChannelOutput(channel, context.congestion, AbortSignal.any([closing.signal, unread.deaf]))
    const interactive = kind === 'shell' && request.pty !== undefined
    context.logger.debug({ kind, pty: request.pty !== undefined }, 'ssh: program asked for')
    running = runProgram({ ...context, channel, output, unread, request, interactive, closed: closing.signal }, (handles) => {
      control = handles
      if (terminal !== undefined) control.resize(terminal)
      for (const signal of early) control.signal(signal)
    })
  }

  session.on('pty', (accept, _reject, asked) => {
    terminal = { name: terminalName((asked as { readonly term?: string }).term), ...terminalSize(asked) }
    accept?.()
  })
  session.on('window-change', (accept, _reject, asked) => {
    if (terminal !== undefined) {
      terminal = { ...terminal, ...terminalSize(asked) }
      control?.resize(terminal)
    }
    accept?.()
  })
  session.on('env', (accept, reject, asked) => {
    const { key, val } = asked as { readonly key: string; readonly val: string }
    if (environment.add(key, val)) accept?.()
    else reject?.()
  })
  session.on('signal', (accept, reject, asked) => {
    const signal = signalNumber(String(asked.name))
    if (signal === undefined) return reject?.()
    if (control !== undefined) control.signal(signal)
    else if (early.length < 16) early.push(signal)
    accept?.()
  })
  onEndOfWrite(session, () => unread.begin())
  session.once('end', () => unread.endInput())
  session.on('shell', (accept) => start('shell', accept, loginShell))
  session.on('exec', (accept, reject, asked) => {
    if (asked.command.includes('\0')) return reject?.()
    start('exec', accept, shellCommand(asked.command))
  })
  session.on('subsystem', (accept, reject, asked) => {
    if (asked.name !== 'sftp') return reject?.()
    start('sftp', accept, [])
  })
  await closed.promise
  await running
}
