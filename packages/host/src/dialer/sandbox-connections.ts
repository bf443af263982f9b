import { Socket } from 'node:net'
import { constants } from 'node:os'
import type { Duplex } from 'node:stream'
import { MagsError } from '@mags/protocol'
import type { AgentConnection } from '../agent/connection.ts'
import { errnoMessage, notListening } from '../agent/request-error.ts'
import type { ProcessIdentity } from '../recover/process-identity.ts'
import { DialError, type Dialer } from './dialer-client.ts'

export interface SandboxConnectionsParts {
  /** The connection to its agent, as it is when it is needed. */
  readonly agent: () => Pick<AgentConnection, 'dial'>
  /** Without it, and when it has ended, everything goes through the agent. */
  readonly dialer: Dialer | undefined
  /** Whose network namespace leads to the sandbox; asked for each connection. */
  readonly process: () => ProcessIdentity
  /** Where a server in the sandbox may listen, as seen from that namespace; undefined for a sandbox without network of its own. */
  readonly addresses: readonly string[] | undefined
  /** Some addresses of the sandbox cannot be reached from that namespace (the loopback of a guest): the agent tries them. */
  readonly agentSeesMore: boolean
  /** For all of one connection; default 10,000. */
  readonly timeoutMs?: number
}

/** What is being opened at once to one sandbox; the rest waits its turn, so that one that answers nothing takes no room from others. */
const openingMax = 256

/**
 * The connections from outside to servers in one sandbox.
 *
 *     open ──close──▶ closed: what was connected is reset, what is being made is given up, nothing new is made
 *
 * `close` belongs before the sandbox's network is given to another: a connection must not outlive the one it was made to.
 */
export class SandboxConnections {
  readonly #parts: SandboxConnectionsParts
  readonly #sockets = new Set<Duplex>()
  readonly #turns: (() => void)[] = []
  #opening = 0
  #closed = false

  constructor(parts: SandboxConnectionsParts) {
    this.#parts = parts
  }

  /** A TCP connection, half open when one side ends it. Rejects with MagsError 'not_listening' when it is refused, 'sandbox_failed' with what else is wrong, 'bad_request' for what is no port. */
  async connect(port: number): Promise<Duplex> {
    if (!Number.isInteger(port) || port < 1 || port > 65_535) throw new MagsError('bad_request', `${port} is not a port; ports are 1 to 65535`)
    if (this.#opening >= openingMax) await new Promise<void>((resolve) => this.#turns.push(resolve))
    else this.#opening++
    try {
      if (this.#closed) throw gone()
      const socket = await this.#dial(port)
      if (this.#closed) {
        reset(socket)
        throw gone()
      }
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
      return socket
    } finally {
      // The place goes to who waits longest.
      const next = this.#turns.shift()
      if (next === undefined) this.#opening--
      else next()
    }
  }

  close() {
    this.#closed = true
    for (const socket of this.#sockets) reset(socket)
    this.#sockets.clear()
  }

  async #dial(port: number): Promise<Duplex> {
    const { agent, dialer, process, addresses, agentSeesMore, timeoutMs = 10_000 } = this.#parts
    if (dialer === undefined || dialer.ended || addresses === undefined) return agent().dial(port)
    try {
      return await dialer.dial({ process: process(), addresses, port, timeoutMs })
    } catch (error) {
      if (!(error instanceof DialError)) {
        if (dialer.ended) return agent().dial(port)
        throw new MagsError('sandbox_failed', `port ${port} of the sandbox: ${error instanceof Error ? error.message : error}`, { cause: error })
      }
      if (error.errno === constants.errno.ECONNREFUSED && agentSeesMore) return agent().dial(port)
      throw dialFailure(port, error, timeoutMs)
    }
  }
}

function dialFailure(port: number, { errno }: DialError, timeoutMs: number): MagsError {
  if (errno === constants.errno.ECONNREFUSED) return notListening(port)
  if (errno === constants.errno.ESRCH) return gone()
  const words =
    errno === constants.errno.ETIMEDOUT
      ? `no connection was accepted within ${timeoutMs / 1000} s; its server may be overloaded or stand still`
      : errnoMessage(errno)
  return new MagsError('sandbox_failed', `port ${port} of the sandbox: ${words}`, { details: { errno, port } })
}

function gone(): MagsError {
  return new MagsError('sandbox_failed', 'the sandbox is gone')
}

/** Not ended in order: whoever uses it must not take what came so far for all. */
function reset(socket: Duplex) {
  if (socket.destroyed) return
  if (socket instanceof Socket) socket.resetAndDestroy()
  else socket.destroy()
}
