import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { root } from './daemon.ts'
import type { WorkspaceClient } from './workspace-client.ts'

export interface ProgramEnd {
  readonly code: number | null
  readonly stdout: Buffer
  readonly stderr: string
}

export interface SshAccess {
  readonly ssh_host: string
  readonly ssh_port: number
  readonly ssh_private_key: string
}

/** OpenSSH's programs for one sandbox, as a user has them who wrote the key of `access` to a file. */
export interface SshClient {
  readonly access: SshAccess
  readonly keyFile: string
  /** Options that ssh, scp and sftp share, without the port. */
  readonly options: readonly string[]
  /** Arguments for `ssh`. */
  args(...words: readonly string[]): string[]
  /** Runs a command in the sandbox. */
  ssh(command: string, input?: Uint8Array | string): Promise<ProgramEnd>
}

/** Of the job: asks for port 22. `folder` gets key and known hosts. */
export async function openSshClient(api: WorkspaceClient, job: string, folder: string): Promise<SshClient> {
  const access = await api.call<SshAccess>('POST', `mags-jobs/${job}/access`, { port: 22 })
  const keyFile = join(folder, `key-${access.ssh_port}`)
  await writeFile(keyFile, access.ssh_private_key, { mode: 0o600 })
  const settings = ['IdentitiesOnly=yes', 'IdentityAgent=none', 'BatchMode=yes', 'LogLevel=ERROR', 'HostKeyAlias=mags', 'StrictHostKeyChecking=accept-new']
  const options = [
    '-F',
    '/dev/null',
    '-i',
    keyFile,
    ...[...settings, `UserKnownHostsFile=${join(folder, 'known_hosts')}`].flatMap((setting) => ['-o', setting]),
  ]
  const args = (...words: readonly string[]) => [...options, '-p', String(access.ssh_port), ...words]
  return { access, keyFile, options, args, ssh: (command, input) => runProgram('ssh', args(`root@${access.ssh_host}`, command), input) }
}

/** Runs a program of this machine to its end. */
export async function runProgram(file: string, args: readonly string[], input?: Uint8Array | string): Promise<ProgramEnd> {
  const child = spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'] })
  const stdout: Buffer[] = []
  let stderr = ''
  child.stdout.on('data', (bytes: Buffer) => stdout.push(bytes))
  child.stderr.on('data', (bytes: Buffer) => {
    stderr += bytes
  })
  // A program may end without reading all of it.
  child.stdin.on('error', () => undefined)
  child.stdin.end(input)
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, stdout: Buffer.concat(stdout), stderr }
}

const ptyRun = join(root, 'packages/gateway/src/ssh/testing/pty-run.py')
const waitMs = 20_000

/** A program on a terminal of its own, and what a person would see and type. */
export class Terminal implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #ended: Promise<number | null>
  readonly #watchers = new Set<() => void>()
  #text = ''
  #isOver = false

  constructor(file: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    this.#child = spawn('python3', [ptyRun, '31', '97', file, ...args], {
      stdio: ['pipe', 'pipe', 'inherit', 'pipe'],
      env: { ...process.env, TERM: 'xterm-256color', ...env },
    })
    this.#output.setEncoding('utf8').on('data', (text: string) => {
      this.#text += text
      for (const look of this.#watchers) look()
    })
    this.#ended = once(this.#child, 'close').then(([code]) => {
      this.#isOver = true
      for (const look of this.#watchers) look()
      return code as number | null
    })
  }

  get text(): string {
    return this.#text
  }

  /** Its exit code. */
  get ended(): Promise<number | null> {
    return this.#ended
  }

  say(words: string): void {
    ;(this.#child.stdin as Writable).write(words)
  }

  resize(rows: number, columns: number): void {
    ;(this.#child.stdio[3] as Writable).write(`${rows} ${columns}\n`)
  }

  /** Rejects when the program ends without saying it, or takes longer than anything here may. */
  async sees(pattern: RegExp): Promise<RegExpExecArray> {
    const { promise, resolve, reject } = Promise.withResolvers<RegExpExecArray>()
    const fail = (why: string) => reject(new Error(`${why} ${pattern}: ${JSON.stringify(this.#text)}`))
    const look = () => {
      const found = pattern.exec(this.#text)
      if (found) resolve(found)
      else if (this.#isOver) fail('it ended before')
    }
    const timer = setTimeout(() => fail('waited in vain for'), waitMs)
    this.#watchers.add(look)
    try {
      look()
      return await promise
    } finally {
      clearTimeout(timer)
      this.#watchers.delete(look)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#ended
  }

  get #output(): Readable {
    if (this.#child.stdout === null) throw new Error('no output')
    return this.#child.stdout
  }
}
