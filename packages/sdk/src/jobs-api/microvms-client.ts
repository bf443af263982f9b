import type { Requester } from '../http/requester.ts'
import type { RunOptions } from '../jobs/run.ts'
import type { CallOptions, PageOptions } from '../jobs/status.ts'
import type { DoneWire } from '../wire/answers.ts'
import type { MicrovmListWire, MicrovmStateWire, MicrovmWire, SshConnectionWire } from '../wire/jobs-api-answers.ts'
import { type Answer, toWire } from '../wire/names.ts'

export interface CreateMicrovmOptions extends CallOptions {
  name: string
  /** Default 2. */
  cpu?: number | undefined
  /** MB; default 1,024. */
  memory?: number | undefined
  /** GB; default 10. */
  disk?: number | undefined
  /** Default `ubuntu-22.04`. */
  image?: string | undefined
  /** As in `~/.ssh/authorized_keys`; without any the server makes a key. */
  sshPublicKeys?: readonly string[] | undefined
  /** Default `vm`. */
  isolation?: 'auto' | 'vm' | 'container' | undefined
  /** An address of its own. */
  ipLease?: boolean | undefined
  /** Port that its URL reaches; default 8080. */
  port?: number | undefined
  /** What it may reach; default: what the server allows. */
  egress?: RunOptions['egress']
  idempotencyKey?: string | undefined
}

/** How long a start or a stop may take until the server answers. */
const patienceMs = 90_000

/** Long-lived machines with a disk of their own. Named by id or name. */
export class MicrovmsClient {
  readonly #requester: Requester

  constructor(requester: Requester) {
    this.#requester = requester
  }

  /** Resolves when the server has it on record; `status` tells when it runs. */
  async create(options: CreateMicrovmOptions): Promise<Answer<MicrovmWire>> {
    const { signal, idempotencyKey = crypto.randomUUID(), ...fields } = options
    const headers = { 'idempotency-key': idempotencyKey }
    return await this.#requester.json<MicrovmWire>({ method: 'POST', path: '/microvms', body: toWire(fields), headers, repeatable: true, signal })
  }

  /** Newest first. */
  async list(options: PageOptions = {}): Promise<Answer<MicrovmListWire>> {
    const { signal, ...paging } = options
    return await this.#requester.json<MicrovmListWire>({ method: 'GET', path: '/microvms', query: toWire(paging) as Record<string, number>, signal })
  }

  async get(id: string, options: CallOptions = {}): Promise<Answer<MicrovmWire>> {
    return await this.#requester.json<MicrovmWire>({ method: 'GET', path: microvmPath(id), signal: options.signal })
  }

  /** With its disk. */
  async delete(id: string, options: CallOptions = {}): Promise<Answer<DoneWire>> {
    return await this.#requester.json<DoneWire>({ method: 'DELETE', path: microvmPath(id), timeoutMs: patienceMs, signal: options.signal })
  }

  /** Idempotent; `status` of the answer may still be `creating`. */
  async start(id: string, options: CallOptions = {}): Promise<Answer<MicrovmStateWire>> {
    return await this.#change(id, '/start', options)
  }

  /** Idempotent; `status` of the answer may still be `stopping`. */
  async stop(id: string, options: CallOptions = {}): Promise<Answer<MicrovmStateWire>> {
    return await this.#change(id, '/stop', options)
  }

  async restart(id: string, options: CallOptions = {}): Promise<Answer<MicrovmStateWire>> {
    return await this.#change(id, '/restart', options)
  }

  /** How to get in by SSH. */
  async sshConnection(id: string, options: CallOptions = {}): Promise<Answer<SshConnectionWire>> {
    return await this.#requester.json<SshConnectionWire>({ method: 'GET', path: microvmPath(id, '/ssh-connection'), signal: options.signal })
  }

  /** The private key that the server made, in OpenSSH's format. */
  async downloadKey(id: string, options: CallOptions = {}): Promise<string> {
    const { response, close } = await this.#requester.open({ method: 'GET', path: microvmPath(id, '/ssh-keys/download'), signal: options.signal })
    try {
      const parts: Uint8Array[] = []
      for await (const part of response.body) parts.push(part)
      return Buffer.concat(parts).toString('utf8')
    } finally {
      close()
    }
  }

  async #change(id: string, verb: string, { signal }: CallOptions): Promise<Answer<MicrovmStateWire>> {
    return await this.#requester.json<MicrovmStateWire>({ method: 'POST', path: microvmPath(id, verb), repeatable: true, timeoutMs: patienceMs, signal })
  }
}

function microvmPath(id: string, rest = ''): string {
  if (id === '') throw new TypeError('The id or name of a microVM must not be empty.')
  return `/microvms/${encodeURIComponent(id)}${rest}`
}
