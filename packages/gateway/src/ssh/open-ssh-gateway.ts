import { createServer, type Server, type Socket } from 'node:net'
import type { GatewayDirectory } from '@mags/protocol'
import type { Logger } from 'pino'
import { Admission } from './admission.ts'
import { loadHostKey } from './host-key.ts'
import { type ConnectionContext, serveConnection } from './serve-connection.ts'
import { defaultSshLimits, type SshLimits } from './ssh-limits.ts'
import { SshPorts } from './ssh-ports.ts'

export interface SshGatewayOptions {
  readonly directory: GatewayDirectory
  /** OpenSSH private key of the gateway; made when it is not there. Its folder must be. */
  readonly hostKeyFile: string
  readonly logger: Logger
  /** Address to listen on. */
  readonly host: string
  /** Port where the user name picks the sandbox; 0 takes a free one, absent means none. */
  readonly sharedPort?: number
  readonly limits?: Partial<SshLimits>
}

export interface SshGateway {
  readonly sharedPort?: number
  /** Why a job's port is not listened on although it should be (usually taken by another program); tried again every few seconds. */
  portFailure(port: number): Promise<string | undefined>
  /** Whether a port that is no job's yet could be listened on. */
  portIsFree(port: number): Promise<boolean>
  /** Ends every connection and waits for the programs on them to be let go. */
  close(): Promise<void>
}

/**
 * SSH to sandboxes: every port of `directory.sshPorts()` is one job's, and on the shared port the user name picks it. Rejects when the shared port cannot be listened on or the host key cannot be read; a job's port that
 * is taken is logged and tried again.
 */
export async function openSshGateway(options: SshGatewayOptions): Promise<SshGateway> {
  const { directory, logger, host } = options
  const limits = { ...defaultSshLimits, ...options.limits }
  await using cleanup = new AsyncDisposableStack()
  const stopping = new AbortController()
  const connections = new Set<Promise<void>>()
  const shared = { directory, hostKey: await loadHostKey(options.hostKeyFile), limits, admission: new Admission(limits), logger }

  const serve = (socket: Socket, context: ConnectionContext) => {
    if (connections.size >= limits.connections) return void socket.destroy()
    const connection = serveConnection(socket, context)
      .catch((error: unknown) => {
        logger.error({ err: error }, 'ssh: a connection failed')
        socket.destroy()
      })
      .finally(() => connections.delete(connection))
    connections.add(connection)
  }

  cleanup.defer(async () => {
    stopping.abort()
    await Promise.all(connections)
  })
  const ports = new SshPorts(host, logger, (socket, port, closing) => {
    const find: ConnectionContext['find'] = async (user, publicKey) => {
      const target = user === 'root' ? await directory.findBySshPort(port) : undefined
      return target !== undefined && (await directory.acceptsKey(target.requestId, publicKey)) ? target : undefined
    }
    serve(socket, { ...shared, find, stopping: AbortSignal.any([stopping.signal, closing]) })
  })
  cleanup.defer(() => ports.close())
  let sharedPort: number | undefined
  if (options.sharedPort !== undefined) {
    const find: ConnectionContext['find'] = (user, publicKey) => directory.findBySshUser(user, publicKey)
    const server = createServer({ allowHalfOpen: false }, (socket) => serve(socket, { ...shared, find, stopping: stopping.signal }))
    sharedPort = await listen(server, options.sharedPort, host)
    server.on('error', (error) => logger.error({ err: error }, 'ssh: the shared port failed'))
    cleanup.defer(() => stopListening(server))
  }
  // Before the list is asked for, so that no change between both is missed.
  cleanup.defer(directory.onSshPort((port, open) => ports.set(port, open)))
  for (const port of await directory.sshPorts()) ports.set(port, true)
  await ports.settled()
  const owned = cleanup.move()
  let closing: Promise<void> | undefined
  return {
    ...(sharedPort === undefined ? {} : { sharedPort }),
    portFailure: (port) => ports.failure(port),
    portIsFree: (port) => ports.isFree(port),
    close: () => {
      closing ??= owned.disposeAsync()
      return closing
    },
  }
}

function listen(server: Server, port: number, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ port, host, backlog: 511 }, () => {
      server.off('error', reject)
      const address = server.address()
      resolve(typeof address === 'object' && address !== null ? address.port : port)
    })
  })
}

/** New connections are refused from now on; those that exist are ended elsewhere. */
function stopListening(server: Server): void {
  server.close()
}
