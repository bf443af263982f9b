import type { GatewayDirectory, GatewayLease, GatewayTarget, RunningSandbox } from '@mags/protocol'

/**
 * The directory of a benchmark: labels for sandboxes that are there, with sleep and wake as the server does them (one wake for all who wait), but no database. So what is measured is gateway and host.
 */
export class BenchDirectory implements GatewayDirectory {
  readonly #entries = new Map<string, Entry>()

  /** @returns the sandbox's place: its host name is `<label>.<apps domain>`, and its name on the shared SSH port the label. */
  add(label: string, sandbox: RunningSandbox, port: number): Entry {
    const entry = new Entry(label, sandbox, port)
    this.#entries.set(label, entry)
    return entry
  }

  async findByHost(host: string): Promise<GatewayTarget | undefined> {
    return this.#entries.get(host.split('.')[0] ?? '')?.target
  }

  async findBySshPort(): Promise<undefined> {
    return undefined
  }

  async findBySshUser(user: string): Promise<GatewayTarget | undefined> {
    return this.#entries.get(user)?.target
  }

  async acceptsKey(): Promise<boolean> {
    return true
  }

  async sshPorts(): Promise<readonly number[]> {
    return []
  }

  onSshPort(): () => void {
    return () => undefined
  }

  async acceptsToken(): Promise<boolean> {
    return true
  }

  async open(requestId: string): Promise<GatewayLease> {
    for (const entry of this.#entries.values()) if (entry.target.requestId === requestId) return entry.open()
    throw new Error(`no ${requestId}`)
  }
}

/** One sandbox behind the gateway. */
export class Entry {
  readonly #label: string
  readonly #sandbox: RunningSandbox
  readonly #port: number
  #state: 'running' | 'sleeping' = 'running'
  #waking: Promise<void> | undefined
  #leases = 0
  #idle: (() => void) | undefined
  /** How often it was woken. */
  wakes = 0

  constructor(label: string, sandbox: RunningSandbox, port: number) {
    this.#label = label
    this.#sandbox = sandbox
    this.#port = port
  }

  get target(): GatewayTarget {
    return { requestId: `bench-${this.#label}`, name: this.#label, port: this.#port, visibility: 'public', state: this.#state, startedAt: 0 }
  }

  async open(): Promise<GatewayLease> {
    this.#leases++
    if (this.#state === 'sleeping') this.#waking ??= this.#wake()
    await this.#waking
    let open = true
    return {
      gone: this.#sandbox.gone,
      wokenAt: null,
      connect: (port) => this.#sandbox.connect(port),
      start: (request, onOutput) => this.#sandbox.start(request, onOutput),
      [Symbol.dispose]: () => {
        if (open) this.#leases--
        open = false
        if (this.#leases === 0) this.#idle?.()
      },
    }
  }

  /** Puts it to sleep once nobody has it open; with `hibernate` its memory goes to disk. False when it cannot do that. */
  async sleep({ hibernate }: { readonly hibernate: boolean }): Promise<boolean> {
    while (this.#leases > 0) await new Promise<void>((resolve) => (this.#idle = resolve))
    this.#state = 'sleeping'
    await this.#sandbox.sleep()
    return !hibernate || this.#sandbox.hibernate()
  }

  async #wake() {
    this.wakes++
    await this.#sandbox.wake()
    this.#state = 'running'
    this.#waking = undefined
  }
}
