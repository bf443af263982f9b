import { once } from 'node:events'
import { createServer as createHttp2Server } from 'node:http2'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer, type TLSSocket } from 'node:tls'
import { type GatewayDirectory, MagsError } from '@mags/protocol'
import type { Logger } from 'pino'
import { type CertificateFiles, watchCertificate } from '../tls/reloaded-certificate.ts'
import { cookieNames } from './access/session-cookie.ts'
import { jsonAnswer } from './answers/own-answer.ts'
import { ownAnswerText } from './client/answer-head.ts'
import { clientAddresses } from './client/client-addresses.ts'
import type { StartExchange } from './client/client-side.ts'
import { ConnectionCounts } from './client/connection-counts.ts'
import { Http1Connection } from './client/http1-connection.ts'
import { Http2ClientSession } from './client/http2-session.ts'
import { Exchange } from './exchange.ts'
import type { HttpDeps } from './http-deps.ts'
import { OpenJobs } from './jobs/open-jobs.ts'
import { defaultLimits, type HttpLimits } from './limits.ts'
import type { ClientAddress } from './request/client-request.ts'

export interface HttpGatewayOptions {
  readonly directory: GatewayDirectory
  readonly logger: Logger
  readonly host: string
  /** 0 takes a free one. */
  readonly port: number
  /** What job names are put before, such as `apps.localhost`. */
  readonly appsDomain: string
  /** At least 32 random bytes that stay the same over restarts; they sign the cookies of private URLs. */
  readonly cookieKey: Uint8Array
  /** With it every connection is TLS. Files are read anew when they change. */
  readonly tls?: CertificateFiles
  /** Addresses or CIDR ranges of reverse proxies whose X-Forwarded-* are believed. */
  readonly trustedProxies?: readonly string[]
  readonly limits?: Partial<HttpLimits>
}

export interface HttpGateway {
  readonly address: string
  readonly port: number
  /** Takes no more; open requests may end within `limits.drainMs`, then they are cut. Idempotent. */
  close(): Promise<void>
}

interface OpenConnection {
  tick(now: number): void
  drain(): void
  destroy(): void
}

/** Serves every job's URL by its host name. Rejects with MagsError 'bad_request' when the address is taken or the certificate cannot be used. */
export async function openHttpGateway(options: HttpGatewayOptions): Promise<HttpGateway> {
  if (options.cookieKey.length < 32) throw new MagsError('bad_request', 'the key of the gateway must have at least 32 bytes')
  await using undo = new AsyncDisposableStack()
  const { directory, logger, appsDomain, cookieKey } = options
  const limits = { ...defaultLimits, ...options.limits }
  const jobs = new OpenJobs({ directory, logger, lingerMs: limits.lingerMs })
  undo.defer(() => jobs.close())
  const publicWithheld = { authorization: false, target: undefined, cookieNames }
  const deps: HttpDeps = { directory, logger, limits, jobs, appsDomain: appsDomain.toLowerCase(), cookieKey, publicWithheld }

  const open = new Set<OpenConnection>()
  const sockets = new Set<Socket>()
  const start: StartExchange = (client, request) => new Exchange(deps, client, request)
  const addressOf = clientAddresses(options.trustedProxies ?? [])
  const takeHttp1 = (socket: Socket, secure: boolean, serverName: string | undefined) => {
    const connection = new Http1Connection(socket, { limits, start, serverName, secure, address: addressOf(socket), onClosed: () => open.delete(connection) })
    open.add(connection)
  }
  const tls = options.tls === undefined ? undefined : undo.use(await openTls(options.tls, { logger, limits, start, open, addressOf, takeHttp1 }))

  const counts = new ConnectionCounts(limits.maxConnections, limits.maxConnectionsPerAddress)
  // With TLS the end of a connection is the end of both directions: HTTP/2 would not hear of it otherwise.
  const server = createServer({ allowHalfOpen: tls === undefined, noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000 }, (socket) => {
    const address = addressOf(socket)
    const remove = counts.add(address.address, !address.trusted)
    if (remove === undefined) return turnAway(socket, tls !== undefined)
    sockets.add(socket)
    socket.once('close', () => {
      sockets.delete(socket)
      remove()
    })
    if (tls === undefined) takeHttp1(socket, false, undefined)
    else tls.accept(socket)
  })
  await listen(server, options)
  server.on('error', (error) => logger.error({ err: error }, 'a connection could not be accepted'))
  undo.defer(() => void server.close())

  const shortest = Math.min(limits.headMs, limits.keepAliveMs, limits.bodyMs, limits.headTimeoutMs)
  const ticking = setInterval(() => tick(open), Math.max(10, Math.min(1000, shortest / 4)))
  undo.defer(() => clearInterval(ticking))

  const resources = undo.move()
  let closing: Promise<void> | undefined
  const close = async () => {
    server.close()
    for (const connection of [...open]) connection.drain()
    await allClosed(sockets, limits.drainMs)
    for (const connection of [...open]) connection.destroy()
    for (const socket of [...sockets]) socket.destroy()
    await resources.disposeAsync()
  }
  const { address, port } = server.address() as AddressInfo
  return { address, port, close: () => (closing ??= close()) }
}

interface TlsDeps {
  readonly logger: Logger
  readonly limits: HttpLimits
  readonly start: StartExchange
  readonly open: Set<OpenConnection>
  readonly addressOf: (socket: Socket) => ClientAddress
  readonly takeHttp1: (socket: Socket, secure: boolean, serverName: string | undefined) => void
}

/** TLS on accepted sockets: HTTP/2 or HTTP/1.1, as the client chooses by ALPN. */
async function openTls(files: CertificateFiles, { logger, limits, start, open, addressOf, takeHttp1 }: TlsDeps) {
  const certificate = await watchCertificate(files, (changed) => server.setSecureContext(changed), { logger })
  const streams = new ConnectionCounts(limits.maxStreams, limits.maxStreamsPerAddress)
  const http2 = createHttp2Server({
    settings: { maxConcurrentStreams: 100, initialWindowSize: 1_048_576, maxHeaderListSize: 65_536, enablePush: false },
    maxHeaderListPairs: 120,
  })
  http2.on('session', (session) => {
    const socket = session.socket as TLSSocket
    const connection = new Http2ClientSession(session, {
      limits,
      start,
      serverName: serverNameOf(socket),
      address: addressOf(socket),
      streams,
      onClosed: () => open.delete(connection),
    })
    open.add(connection)
  })
  const server = createTlsServer(
    { ...certificate.first, ALPNProtocols: ['h2', 'http/1.1'], minVersion: 'TLSv1.2', handshakeTimeout: limits.headMs },
    (secure) => {
      if (secure.alpnProtocol === 'h2') http2.emit('connection', secure)
      else takeHttp1(secure, true, serverNameOf(secure))
    },
  )
  server.on('tlsClientError', (_error, secure) => secure.destroy())
  return {
    accept: (socket: Socket) => server.emit('connection', socket),
    [Symbol.dispose]: () => certificate[Symbol.dispose](),
  }
}

function serverNameOf({ servername }: TLSSocket): string | undefined {
  return typeof servername === 'string' && servername !== '' ? servername : undefined
}

function tick(open: ReadonlySet<OpenConnection>): void {
  const now = Date.now()
  for (const connection of open) connection.tick(now)
}

function turnAway(socket: Socket, secure: boolean): void {
  socket.on('error', () => socket.destroy())
  if (secure) return void socket.destroy()
  socket.resume()
  const words = { error: 'too many connections; close some or try again in a moment', code: 'no_capacity' }
  socket.end(ownAnswerText(jsonAnswer(503, words, [['Retry-After', '2']]), 'GET', true), 'latin1', () => socket.destroySoon())
}

async function listen(server: Server, { host, port }: HttpGatewayOptions): Promise<void> {
  try {
    server.listen({ host, port, backlog: 1024 })
    await once(server, 'listening')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EADDRINUSE')
      throw new MagsError('bad_request', `port ${port} on ${host} is taken; choose another for the URLs of sandboxes`, { cause: error })
    throw error
  }
}

/** Settles when all are closed or the time is over. */
async function allClosed(sockets: ReadonlySet<Socket>, withinMs: number): Promise<void> {
  const bound = AbortSignal.timeout(withinMs)
  for (const socket of [...sockets]) {
    if (socket.destroyed) continue
    await once(socket, 'close', { signal: bound }).catch(() => {})
    if (bound.aborted) return
  }
}
