import { once } from 'node:events'
import { connect } from 'node:net'
import type { Duplex } from 'node:stream'
import { type GatewayDirectory, type GatewayLease, type GatewayTarget, MagsError } from '@mags/protocol'

/** One job, `web`, whose sandbox is this machine's loopback. */
export class FakeDirectory implements GatewayDirectory {
  target: GatewayTarget
  /** Calls of `open`; what they wait for; leases not closed. */
  opens = 0
  opening: Promise<void> = Promise.resolve()
  leases = 0
  /** Calls of `connect` and sockets that are not closed. */
  connects = 0
  readonly sockets = new Set<Duplex>()
  token = 'secret-token'
  readonly hosts = new Set(['web.apps.localhost', 'shop.example.org'])
  wokenAt: number | null = null
  gone = new Promise<void>(() => {})
  #onLeases: (() => void)[] = []

  constructor(port: number, changes: Partial<GatewayTarget> = {}) {
    this.target = { requestId: '6f1c1f0e-0000-4000-8000-000000000001', name: 'web', port, visibility: 'public', state: 'running', startedAt: 0, ...changes }
  }

  async findByHost(host: string): Promise<GatewayTarget | undefined> {
    return this.hosts.has(host) ? this.target : undefined
  }

  async acceptsToken(_requestId: string, token: string): Promise<boolean> {
    return token === this.token
  }

  async open(): Promise<GatewayLease> {
    this.opens++
    await this.opening
    this.target = { ...this.target, state: 'running' }
    this.leases++
    let open = true
    return {
      gone: this.gone,
      wokenAt: this.wokenAt,
      connect: (port) => this.#connect(port),
      start: () => {
        throw new Error('not here')
      },
      [Symbol.dispose]: () => {
        if (open) this.leases--
        open = false
        for (const heard of this.#onLeases.splice(0)) heard()
      },
    }
  }

  /** Settles when no lease is open. */
  async released(): Promise<void> {
    while (this.leases > 0) await new Promise<void>((resolve) => this.#onLeases.push(resolve))
  }

  async findBySshPort(): Promise<undefined> {}
  async findBySshUser(): Promise<undefined> {}
  async acceptsKey(): Promise<boolean> {
    return false
  }
  async sshPorts(): Promise<readonly number[]> {
    return []
  }
  onSshPort(): () => void {
    return () => {}
  }

  async #connect(port: number): Promise<Duplex> {
    this.connects++
    const socket = connect({ port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true })
    try {
      await once(socket, 'connect')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ECONNREFUSED') throw new MagsError('not_listening', `nothing listens on port ${port}`, { cause: error })
      throw error
    }
    this.sockets.add(socket)
    socket.once('close', () => this.sockets.delete(socket))
    return socket
  }
}
