import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'vitest'
import { makePlace, startDaemon, type TestDaemon } from './daemon.ts'
import { leftOf } from './leaks.ts'
import { openSshClient, type SshClient, Terminal } from './ssh-client.ts'
import { WorkspaceClient } from './workspace-client.ts'

/** A daemon with one job that stays, `web` on the workspace of that name, and OpenSSH's client for it. The daemon may be ended and started anew. */
export class SshGround {
  readonly #undo = new AsyncDisposableStack()
  readonly #environment: Readonly<Record<string, string>>
  /** The job's port is the first that the server gives. Below the ports of outgoing connections, so that nothing else takes it. */
  readonly firstPort = 21_000 + (process.pid % 1_000) * 10
  folder = ''
  job = ''
  daemon!: TestDaemon
  api!: WorkspaceClient
  client!: SshClient
  start!: (more?: Readonly<Record<string, string>>) => Promise<void>

  constructor(environment: Readonly<Record<string, string>>) {
    this.#environment = { MAGS_POOL_MIN: '1', MAGS_SSH_FIRST_PORT: String(this.firstPort), ...environment }
  }

  async open(): Promise<void> {
    this.folder = await mkdtemp(join(tmpdir(), 'mags-ssh-'))
    this.#undo.defer(() => rm(this.folder, { recursive: true, force: true }))
    const place = this.#undo.use(await makePlace())
    this.start = async (more = {}) => {
      this.daemon = await startDaemon({ ...this.#environment, ...more }, place)
      this.api = new WorkspaceClient(this.daemon)
    }
    await this.start()
    this.#undo.defer(() => this.daemon[Symbol.asyncDispose]())
    this.job = await this.api.open({ name: 'web', workspace_id: 'web', environment: { GREETING: 'good day' } })
    this.client = await openSshClient(this.api, this.job, this.folder)
  }

  /** Also looks that nothing is left over. */
  async close(): Promise<void> {
    if (this.job !== '') await this.api.stop(this.job)
    await this.daemon?.stop()
    const left = this.daemon && leftOf(this.daemon)
    await this.#undo.disposeAsync()
    expect(left).toEqual([])
  }

  /** What a command prints that ends well and complains of nothing. */
  async ok(command: string, input?: Uint8Array | string): Promise<string> {
    const end = await this.client.ssh(command, input)
    expect({ code: end.code, stderr: end.stderr }).toEqual({ code: 0, stderr: '' })
    return end.stdout.toString()
  }

  terminal(): Terminal {
    return new Terminal('ssh', this.client.args(this.target))
  }

  get target(): string {
    return `root@${this.client.access.ssh_host}`
  }
}
