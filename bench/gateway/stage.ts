import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { HostApi, RunningSandbox } from '@mags/protocol'
import { type Logger, pino } from 'pino'
import { planSlot } from '../../packages/host/src/network/address-plan.ts'
import { parseRange } from '../../packages/host/src/network/ipv4-range.ts'
import { openHost } from '../../packages/host/src/open-host.ts'
import { root } from '../../tests/kit/daemon.ts'
import { runProgram } from './run-program.ts'

export const serverPort = 8080
const subnet = parseRange('10.213.0.0/16')

/** A sandbox with the server in it. */
export interface Staged {
  readonly sandbox: RunningSandbox
  /** Where its server is reached in the network namespace that `inside` enters. */
  readonly address: string
  /** Arguments for nsenter(1): its own namespace for a container, that of the router for a virtual machine. */
  readonly inside: readonly string[]
}

/** A host without server and database, for one kind of sandbox. */
export interface Stage extends AsyncDisposable {
  readonly host: HostApi
  readonly isolation: 'container' | 'vm'
  readonly dir: string
  readonly instance: string
  readonly logger: Logger
  /** A sandbox in which the server listens. */
  start(): Promise<Staged>
}

export async function openStage(isolation: 'container' | 'vm'): Promise<Stage> {
  await using undo = new AsyncDisposableStack()
  const dir = await mkdtemp(join(tmpdir(), 'mags-bench-'))
  undo.defer(() => rm(dir, { recursive: true, force: true }))
  const instance = crypto.randomUUID().replaceAll('-', '').slice(0, 6)
  const runDir = `/run/mags/${instance}`
  const dataDir = await mkdtemp('/var/tmp/mags-bench-')
  undo.defer(() => rm(dataDir, { recursive: true, force: true }))
  const server = join(dir, 'server')
  await runProgram('gcc', ['-O2', '-static', '-o', server, join(import.meta.dirname, 'server.c')])
  const bytes = await readFile(server)
  const logger = pino({ level: 'silent' })
  const native = (name: string) => join(root, 'native/build', name)
  const size = { vcpus: 1, memoryMb: 256, diskGb: 2 }
  await mkdir('/run/mags', { recursive: true })
  const host = await openHost({
    instance,
    systemDir: process.env.MAGS_SYSTEM_DIR ?? '/var/lib/mags',
    dataDir,
    runDir,
    agentBinary: native('agent'),
    mounterBinary: native('mounter'),
    isolation,
    ociRuntime: 'crun',
    store: { place: { kind: 'folder', folder: join(dataDir, 'store') } },
    defaults: { image: 'debian-12', ...size },
    // As many as fit.
    pool: { minSize: 0, maxSize: 0, idleTtlMs: 60_000 },
    logger,
  })
  undo.defer(() => host.close({ keepPersistent: false }))
  await host.settle()

  const place = async (sandboxId: string): Promise<Pick<Staged, 'address' | 'inside'>> => {
    const record = isolation === 'container' ? join(runDir, 'c', sandboxId) : join(dataDir, 'vm', sandboxId)
    const { process: first, slot } = JSON.parse(await readFile(join(record, 'record.json'), 'utf8')) as { process: { pid: number }; slot: number }
    const address = isolation === 'container' ? '127.0.0.1' : planSlot(subnet, 'tap', slot).address
    return { address, inside: [`--net=/proc/${first.pid}/ns/net`] }
  }
  // The rules of the router let nothing through its own loopback: nginx and its clients meet there.
  if (isolation === 'vm') {
    await runProgram('nsenter', [`--net=${join(runDir, 'netns/router')}`, 'nft', 'insert', 'rule', 'inet', 'mags', 'input', 'iifname', 'lo', 'accept'])
    await runProgram('nsenter', [`--net=${join(runDir, 'netns/router')}`, 'ip', 'link', 'set', 'lo', 'up'])
  }
  const start = async (): Promise<Staged> => {
    const lease = await host.acquire({ image: 'debian-12', isolation, ...size, persistent: false })
    const ready = Promise.withResolvers<void>()
    let said = ''
    const script = {
      script: 'chmod 755 /root/server; exec /root/server 8080',
      environment: {},
      files: [{ path: '/root/server', content: () => pieces(bytes) }],
    }
    const sandbox = await lease.run(script, async ({ bytes: output }) => {
      said += Buffer.from(output).toString()
      if (said.includes('ready')) ready.resolve()
      return undefined
    })
    await Promise.race([ready.promise, sandbox.exited.then(() => Promise.reject(new Error(`the server ended: ${said}`)))])
    return { sandbox, ...(await place(sandbox.sandboxId)) }
  }
  const held = undo.move()
  return { host, isolation, dir, instance, logger, start, [Symbol.asyncDispose]: () => held.disposeAsync() }
}

async function* pieces(bytes: Buffer) {
  for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536)
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' && address !== null ? address.port : 0
}
