import type { Socket } from 'node:net'
import type { GatewayDirectory, GatewayTarget } from '@mags/protocol'
import type { Logger } from 'pino'
import ssh2, { type Connection, type ServerChannel } from 'ssh2'
import type { Admission } from './admission.ts'
import { authenticate } from './authenticate.ts'
import { Congestion } from './congestion.ts'
import { ConnectionLease } from './connection-lease.ts'
import { forwardPort } from './forward-port.ts'
import { serveSession } from './serve-session.ts'
import { sshAlgorithms } from './ssh-algorithms.ts'
import type { SshLimits } from './ssh-limits.ts'
import { disconnectReason, hearEndOfWrite, isPacketTooLong, openFailure, refuseChannel, sendDisconnect } from './ssh2-internals.ts'

/**
 * To servers of another name OpenSSH's client does not say that its output is closed (`OpenSSH*` in its compat.c), and clients of SFTP swap the paths of a symbolic link. No version, so that nobody takes its faults for ours.
 */
const identification = 'OpenSSH_compatible Mags'
/** Between the words of a disconnect and the end of the connection. */
const lastWordsMs = 250
/** The job is woken while the client still asks for its first channel; not for longer than this. */
const firstChannelMs = 5_000

export interface ConnectionContext {
  readonly directory: GatewayDirectory
  readonly hostKey: string
  readonly limits: SshLimits
  readonly admission: Admission
  readonly logger: Logger
  /** Whom a user name and a public key mean on this port. */
  readonly find: (user: string, publicKey: string) => Promise<GatewayTarget | undefined>
  /** The gateway or the port ends. */
  readonly stopping: AbortSignal
}

/**
 * One connection from its first byte to the end of the last program on it: `unauthenticated` → `open` → `gone`. The first ends by itself after the login grace. Never rejects.
 */
export async function serveConnection(socket: Socket, context: ConnectionContext): Promise<void> {
  const { admission, limits } = context
  const address = socket.remoteAddress
  if (address === undefined) return void socket.destroy()
  const gone = new AbortController()
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => {
      gone.abort()
      resolve()
    })
  })
  socket.on('error', () => undefined)
  const admitted = admission.enter(address, () => socket.destroy())
  if (admitted === undefined) {
    // Before the identification any line may be sent (RFC 4253, 4.2).
    socket.end('Too many connections that have not logged in; try again in a moment\r\n')
    socket.resume()
    setTimeout(() => socket.destroy(), lastWordsMs)
    return await closed
  }
  let authenticated = false
  const leave = () => {
    if (authenticated) return
    authenticated = true
    admitted()
  }
  gone.signal.addEventListener('abort', leave, { once: true })
  socket.setNoDelay(true)
  const logger = context.logger.child({ client: address, port: socket.localPort })
  let end: (reason: number, words: string) => void = () => socket.destroy()
  const grace = setTimeout(() => end(disconnectReason.byApplication, 'Login took too long'), limits.loginGraceMs)
  const stop = () => end(disconnectReason.byApplication, 'The gateway is closing; connect again')
  context.stopping.addEventListener('abort', stop, { once: true })
  const running = new Set<Promise<void>>()

  const server = new ssh2.Server(
    {
      hostKeys: [context.hostKey],
      ident: identification,
      algorithms: sshAlgorithms,
      keepaliveInterval: limits.keepaliveMs,
      keepaliveCountMax: limits.keepaliveMissed,
    },
    (connection) => {
      connection.on('error', (error) => {
        logger.debug({ err: error }, 'ssh: connection failed')
        if (isPacketTooLong(error)) end(disconnectReason.protocolError, 'A packet has at most 35,000 bytes; give longer commands to a shell as standard input')
        setTimeout(() => socket.destroy(), lastWordsMs)
      })
      end = (reason, words) => {
        try {
          sendDisconnect(connection, reason, words)
          socket.end()
        } catch {}
        setTimeout(() => socket.destroy(), lastWordsMs)
      }
      hearEndOfWrite(connection)
      limitRekeys(connection, limits, () => end(disconnectReason.protocolError, 'Too many key exchanges'))
      void authenticate(connection, {
        find: context.find,
        triesMax: limits.authTries,
        countFailure: () => admission.fail(address),
        closed: gone.signal,
        logger,
        end: () => void setTimeout(() => socket.destroy(), lastWordsMs),
      }).then((target) => {
        clearTimeout(grace)
        leave()
        logger.info({ requestId: target.requestId }, 'ssh: connected')
        serveChannels(connection, socket, target, { ...context, logger: logger.child({ requestId: target.requestId }), gone: gone.signal, running, end })
      })
    },
  )
  server.injectSocket(socket)
  if (context.stopping.aborted) stop()
  await closed
  clearTimeout(grace)
  context.stopping.removeEventListener('abort', stop)
  await Promise.all(running)
}

interface ChannelsContext extends ConnectionContext {
  readonly gone: AbortSignal
  /** What is not over yet. */
  readonly running: Set<Promise<void>>
  readonly end: (reason: number, words: string) => void
}

function serveChannels(connection: Connection, socket: Socket, target: GatewayTarget, context: ChannelsContext): void {
  const { limits, logger, gone, running } = context
  const lease = new ConnectionLease((abort) => context.directory.open(target.requestId, 'ssh', abort))
  const congestion = new Congestion(socket, connection, limits.rekeyTimeoutMs)
  const unread = new Set<ServerChannel>()
  socket.on('data', () => {
    let bytes = 0
    for (const channel of unread) bytes += channel.readableLength
    if (bytes > limits.unreadBytes) context.end(disconnectReason.protocolError, 'Too much was sent that nobody reads')
  })
  const first = lease.hold()
  first.lease.catch(() => undefined)
  const waited = setTimeout(() => first[Symbol.dispose](), firstChannelMs)
  gone.addEventListener('abort', () => first[Symbol.dispose](), { once: true })
  let channels = 0
  const shared = {
    connection,
    congestion,
    name: target.name,
    names: [target.name.toLowerCase()],
    environment: clientEnvironment(socket),
    disconnected: gone,
    stopping: context.stopping,
    hangUpGraceMs: limits.hangUpGraceMs,
    logger,
    track: (channel: ServerChannel) => {
      unread.add(channel)
      return { [Symbol.dispose]: () => void unread.delete(channel) }
    },
    refuse: (words: string) => context.end(disconnectReason.protocolError, words),
  }
  const serve = (open: (freed: () => void) => Promise<void>) => {
    channels++
    let held = true
    const freed = () => {
      if (held) channels--
      held = false
    }
    const work = open(freed)
      .catch((error: unknown) => logger.error({ err: error }, 'ssh: a channel failed'))
      .finally(() => {
        freed()
        running.delete(work)
      })
    running.add(work)
    clearTimeout(waited)
    first[Symbol.dispose]()
  }
  const isFull = (reject: () => void): boolean => {
    // Programs of closed channels that still end count too, but less.
    if (channels < limits.channelsPerConnection && running.size < 2 * limits.channelsPerConnection) return false
    refuseChannel(connection, reject, openFailure.resourceShortage, `more than ${limits.channelsPerConnection} channels on one connection`)
    return true
  }

  connection.on('session', (accept, reject) => {
    if (!isFull(reject)) serve((freed) => serveSession(accept(), { ...shared, freed, hold: lease.hold() }))
  })
  connection.on('tcpip', (accept, reject, asked) => {
    if (!isFull(reject)) serve((freed) => forwardPort(asked, accept, reject, { ...shared, freed, hold: lease.hold() }))
  })
  connection.on('openssh.streamlocal', (_accept, reject) => {
    refuseChannel(connection, reject, openFailure.prohibited, 'sockets in the file system of the sandbox cannot be forwarded; forward a port of it')
  })
  connection.on('request', (_accept, reject, name) => {
    logger.debug({ name }, 'ssh: forwarding from the sandbox to the client (-R) is not offered')
    reject?.()
  })
}

function limitRekeys(connection: Connection, limits: SshLimits, over: () => void): void {
  let since = Date.now()
  let count = 0
  connection.on('rekey', () => {
    if (Date.now() - since > 60_000) {
      since = Date.now()
      count = 0
    }
    if (++count > limits.rekeysPerMinute) over()
  })
}

/** As sshd(8) sets them. */
function clientEnvironment(socket: Socket): Record<string, string> {
  const { remoteAddress = '', remotePort = 0, localAddress = '', localPort = 0 } = socket
  const client = remoteAddress.replace(/^::ffff:/, '')
  return { SSH_CLIENT: `${client} ${remotePort} ${localPort}`, SSH_CONNECTION: `${client} ${remotePort} ${localAddress.replace(/^::ffff:/, '')} ${localPort}` }
}
