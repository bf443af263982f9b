import { chmod, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type ProgramEnd, runProgram } from './ssh-client.ts'

type Daemon = { readonly url: string; readonly token: string }

export interface MicrovmWire {
  readonly id: string
  readonly name: string
  readonly status: string
  readonly error: string | null
  readonly url: string
  readonly ssh_port: number
  readonly request_id: string
  readonly init: boolean
  readonly image_digest: string
}

const startTimeoutMs = 300_000
const lookEveryMs = 500

/** One microVM as a user has it who knows curl and ssh; the files of both are in `folder`. Set `daemon` after a restart of it. */
export class MicrovmUser {
  daemon: Daemon
  readonly folder: string
  readonly name: string

  constructor(daemon: Daemon, folder: string, name: string) {
    this.daemon = daemon
    this.folder = folder
    this.name = name
  }

  async call<T>(method: string, path = '', body?: unknown): Promise<T> {
    const { url, token } = this.daemon
    const headers = { authorization: `Bearer ${token}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) }
    const answer = await fetch(`${url}/api/v1/microvms${path}`, { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) })
    const text = await answer.text()
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`)
    return JSON.parse(text) as T
  }

  get(): Promise<MicrovmWire> {
    return this.call('GET', `/${this.name}`)
  }

  /** Rejects when it is in error, or that takes longer than anything may. */
  async becomes(status: string, more: (vm: MicrovmWire) => boolean = () => true): Promise<MicrovmWire> {
    for (const deadline = performance.now() + startTimeoutMs; ; ) {
      const vm = await this.get()
      if (vm.status === status && more(vm)) return vm
      if (vm.status === 'error' || performance.now() > deadline) throw new Error(`the microVM is ${vm.status}: ${vm.error}`)
      await new Promise((resolve) => setTimeout(resolve, lookEveryMs))
    }
  }

  async act(action: 'start' | 'stop' | 'restart'): Promise<string> {
    const { status, success, error } = await this.call<{ status: string; success: boolean; error?: string }>('POST', `/${this.name}/${action}`)
    if (!success) throw new Error(`${action}: ${error}`)
    return status
  }

  /** What its URL shows. */
  async page(): Promise<string> {
    const { host, port } = new URL((await this.get()).url)
    const { code, stdout, stderr } = await runProgram('curl', ['-sSf', '-H', `Host: ${host}`, `http://127.0.0.1:${port}/`])
    if (code !== 0) throw new Error(`its URL shows nothing: ${stderr}`)
    return stdout.toString()
  }

  /** Under the name that the server gives it. */
  async downloadKey(): Promise<void> {
    await mkdir(this.folder, { recursive: true })
    const { url, token } = this.daemon
    const { key_file } = await this.call<{ key_file: string }>('GET', `/${this.name}/ssh-connection`)
    const curl = `cd '${this.folder}' && curl -sSfOJ -H 'Authorization: Bearer ${token}' '${url}/api/v1/microvms/${this.name}/ssh-keys/download'`
    const { code, stderr } = await runProgram('sh', ['-c', curl])
    if (code !== 0) throw new Error(`the key could not be downloaded: ${stderr}`)
    await chmod(join(this.folder, key_file), 0o600)
  }

  /** The command of the API as it is pasted, with known hosts in our folder; `script` goes to a shell inside. */
  async ssh(script: string): Promise<ProgramEnd> {
    const { ssh_command } = await this.call<{ ssh_command: string }>('GET', `/${this.name}/ssh-connection`)
    const own = `-o BatchMode=yes -o LogLevel=ERROR -o IdentityAgent=none -o UserKnownHostsFile='${this.folder}/known_hosts'`
    return await runProgram('sh', ['-c', `cd '${this.folder}' && ${ssh_command} ${own} sh -s`], script)
  }

  /** What a script prints that ends well. */
  async prints(script: string): Promise<string> {
    const { code, stdout, stderr } = await this.ssh(script)
    if (code !== 0) throw new Error(`exit ${code}: ${stderr}${stdout}`)
    return stdout.toString().trim()
  }
}
