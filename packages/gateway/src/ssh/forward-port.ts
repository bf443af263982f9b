import type { Duplex } from 'node:stream'
import { MagsError } from '@mags/protocol'
import type { Connection, ServerChannel, TcpipRequestInfo } from 'ssh2'
import { ChannelOutput } from './channel-output.ts'
import type { Congestion } from './congestion.ts'
import type { LeaseHold } from './connection-lease.ts'
import { whenAborted } from './delay.ts'
import { packetSizeMin } from './serve-session.ts'
import { openFailure, packetSizeOf, refuseChannel, sendEof } from './ssh2-internals.ts'

const ownHosts: ReadonlySet<string> = new Set(['localhost', 'localhost.localdomain', '127.0.0.1', '::1', '0.0.0.0', '::', '*', ''])

export interface ForwardContext {
  readonly connection: Connection
  readonly hold: LeaseHold
  readonly congestion: Congestion
  /** Names of the sandbox itself. */
  readonly names: readonly string[]
  readonly disconnected: AbortSignal
  /** The client has closed the channel, or never got one. */
  readonly freed: () => void
  readonly track: (channel: ServerChannel) => Disposable
  readonly refuse: (words: string) => void
}

/** For what a client sent before it closed the channel. */
const drainMs = 10_000

/** One forwarded connection (RFC 4254, 7.2) to a port of the sandbox, both ways and each with its own end; settles when it is over. Never rejects. */
export async function forwardPort(asked: TcpipRequestInfo, accept: () => ServerChannel, reject: () => void, context: ForwardContext): Promise<void> {
  using cleanup = new DisposableStack()
  cleanup.defer(context.freed)
  const hold = cleanup.use(context.hold)
  const { connection, disconnected } = context
  const refuse = (reason: number, words: string) => {
    if (!disconnected.aborted) refuseChannel(connection, reject, reason, words)
  }
  const host = asked.destIP.toLowerCase().replace(/\.$/, '')
  if (!ownHosts.has(host) && !context.names.includes(host)) {
    return refuse(openFailure.prohibited, `only ports of the sandbox itself can be reached (localhost), not ${printable(asked.destIP)}`)
  }
  if (asked.destPort < 1 || asked.destPort > 65_535) return refuse(openFailure.prohibited, `${asked.destPort} is no port`)
  let remote: Duplex | undefined
  try {
    remote = await reach(hold, asked.destPort, disconnected)
  } catch (error) {
    return refuse(openFailure.connectFailed, error instanceof MagsError ? error.message : 'the sandbox cannot be reached')
  }
  if (remote === undefined) return
  remote.on('error', () => undefined)
  try {
    await carry(accept(), remote, context)
  } finally {
    remote.destroy()
  }
}

/** Undefined when the client went away meanwhile. */
async function reach(hold: LeaseHold, port: number, disconnected: AbortSignal): Promise<Duplex | undefined> {
  using client = whenAborted(disconnected)
  const lease = await Promise.race([hold.lease, client.aborted])
  if (lease === undefined) return undefined
  const connecting = lease.connect(port)
  const remote = await Promise.race([connecting, client.aborted])
  if (remote !== undefined && !disconnected.aborted) return remote
  connecting.then(
    (late) => late.on('error', () => undefined).destroy(),
    () => undefined,
  )
  return undefined
}

async function carry(channel: ServerChannel, remote: Duplex, context: ForwardContext): Promise<void> {
  if (packetSizeOf(channel) < packetSizeMin) return context.refuse('the packet size of a channel is too small')
  using _tracked = context.track(channel)
  /** Nobody takes output any more. */
  const deaf = new AbortController()
  const over = Promise.withResolvers<void>()
  const clientClosed = Promise.withResolvers<void>()
  let drainTimer: NodeJS.Timeout | undefined
  const disconnect = () => {
    deaf.abort()
    over.resolve()
    clientClosed.resolve()
  }
  context.disconnected.addEventListener('abort', disconnect, { once: true })
  // Ended by ssh2 when the client closes the channel, even while nobody reads it. What it sent before is still delivered.
  channel.stderr.once('finish', () => {
    context.freed()
    deaf.abort()
    clientClosed.resolve()
    drainTimer = setTimeout(over.resolve, drainMs)
  })
  const output = new ChannelOutput(channel, context.congestion, deaf.signal)
  let open = 2
  const ended = () => {
    if (--open === 0) over.resolve()
  }
  const take = () => {
    for (let bytes: Buffer | null = channel.read(); bytes !== null; bytes = channel.read()) {
      if (remote.write(bytes)) continue
      channel.off('readable', take)
      remote.once('drain', () => {
        channel.on('readable', take)
        take()
      })
      return
    }
  }
  channel.on('readable', take)
  channel.once('end', () => {
    remote.end(() => (deaf.signal.aborted ? over.resolve() : undefined))
    ended()
  })
  remote.on('data', (bytes: Buffer) => {
    remote.pause()
    void output.write('stdout', bytes).then(() => remote.resume())
  })
  remote.once('end', () => {
    void output.written.then(() => {
      if (!deaf.signal.aborted) sendEof(channel)
      ended()
    })
  })
  remote.once('close', () => void output.written.then(() => over.resolve()))
  take()
  await over.promise
  await output.written
  clearTimeout(drainTimer)
  try {
    channel.off('readable', take)
    channel.resume()
    channel.end()
  } catch {
    // The connection broke meanwhile.
  }
  remote.destroy()
  await clientClosed.promise
  context.disconnected.removeEventListener('abort', disconnect)
}

/** It comes from the client and goes back to its terminal. */
function printable(text: string): string {
  return JSON.stringify(text.slice(0, 100))
}
