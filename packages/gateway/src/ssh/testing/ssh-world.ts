import { spawn } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generateSshKey } from '@mags/protocol'
import { pino } from 'pino'
import { openSshGateway, type SshGateway } from '../open-ssh-gateway.ts'
import type { SshLimits } from '../ssh-limits.ts'
import { FakeDirectory } from './fake-directory.ts'

export interface Outcome {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: Buffer
  readonly stderr: string
}

export interface Key {
  readonly file: string
  readonly publicKey: string
  readonly privateKey: string
}

export const outer = '11111111-0000-4000-8000-000000000001'
export const other = '22222222-0000-4000-8000-000000000002'

/** Two jobs with a port and a key each, a gateway before them, and OpenSSH's programs. */
export async function openSshWorld(limits: Partial<SshLimits> = {}) {
  await using cleanup = new AsyncDisposableStack()
  const folder = await mkdtemp(join(tmpdir(), 'mags-ssh-'))
  cleanup.defer(() => rm(folder, { recursive: true, force: true }))
  const directory = new FakeDirectory()
  const keyOf = async (name: string): Promise<Key> => {
    const pair = await generateSshKey(name)
    const file = join(folder, `key-${name}`)
    await writeFile(file, pair.privateKey, { mode: 0o600 })
    return { file, privateKey: pair.privateKey, publicKey: pair.publicKey.split(' ').slice(0, 2).join(' ') }
  }
  const keys = { webapp: await keyOf('webapp'), batch: await keyOf('batch'), stranger: await keyOf('stranger') }
  const home = join(folder, 'webapp')
  await mkdir(home)
  await mkdir(join(folder, 'batch'))
  const ports = { webapp: await freePort(), batch: await freePort() }
  directory.add(outer, { name: 'webapp', folder: home, port: ports.webapp, keys: [keys.webapp.publicKey] })
  directory.add(other, { name: 'batch', folder: join(folder, 'batch'), port: ports.batch, keys: [keys.batch.publicKey] })
  const hostKeyFile = join(folder, 'host-key')
  const logger = pino({ level: process.env.MAGS_TEST_LOG ?? 'silent' })
  const open = () => openSshGateway({ directory, hostKeyFile, logger, host: '127.0.0.1', sharedPort: 0, limits: { hangUpGraceMs: 500, ...limits } })
  let gateway: SshGateway = await open()
  cleanup.defer(() => gateway.close())

  const options = [
    ...['-F', '/dev/null', '-o', 'StrictHostKeyChecking=accept-new', '-o', `UserKnownHostsFile=${join(folder, 'known')}`, '-o', 'IdentitiesOnly=yes'],
    ...['-o', 'IdentityAgent=none', '-o', 'BatchMode=yes', '-o', 'LogLevel=ERROR'],
  ]
  const run = (file: string, args: readonly string[], input?: Uint8Array | string) => runProcess(file, args, input)
  const owned = cleanup.move()
  return {
    directory,
    folder,
    home,
    keys,
    ports,
    hostKeyFile,
    options,
    get gateway() {
      return gateway
    },
    sharedPort: () => gateway.sharedPort ?? 0,
    run,
    /** `ssh` to the job `webapp`. */
    ssh: (args: readonly string[], input?: Uint8Array | string) => run('ssh', [...options, '-i', keys.webapp.file, '-p', String(ports.webapp), ...args], input),
    sshArgs: (...args: readonly string[]) => [...options, '-i', keys.webapp.file, '-p', String(ports.webapp), ...args],
    restart: async () => {
      await gateway.close()
      gateway = await open()
    },
    knownHosts: () => readFile(join(folder, 'known'), 'utf8'),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

export type SshWorld = Awaited<ReturnType<typeof openSshWorld>>

export function runProcess(file: string, args: readonly string[], input?: Uint8Array | string): Promise<Outcome> {
  const child = spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'] })
  const stdout: Buffer[] = []
  const stderr: Buffer[] = []
  child.stdout.on('data', (bytes: Buffer) => stdout.push(bytes))
  child.stderr.on('data', (bytes: Buffer) => stderr.push(bytes))
  child.stdin.on('error', () => undefined)
  child.stdin.end(input)
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => resolve({ code, signal, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString() }))
  })
}

export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  return address.port
}
