import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { accessSync, constants, mkdtempSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3'
import { canTest } from './require.ts'

/** A real S3 server (Ceph's gateway), which enforces conditions and signatures. What it keeps goes with it. */
export interface TestS3Server extends AsyncDisposable {
  readonly endpoint: string
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string }
  /** A new, empty bucket; gives its name. The first takes two seconds. */
  createBucket(): Promise<string>
  /** The gateway dies; what was acknowledged is kept. */
  stop(): Promise<void>
  /** Answers again once settled. */
  start(): Promise<void>
}

const programs = ['ceph-mon', 'ceph-osd', 'radosgw', 'radosgw-admin', 'ceph', 'ceph-authtool', 'monmaptool', 'setpriv']

/** Whether it can be started here; prints why not. With MAGS_REQUIRE_S3=1 that is an error instead. */
export function canTestS3(): boolean {
  const missing = programs.filter((name) => !isInstalled(name))
  return canTest(
    'MAGS_REQUIRE_S3',
    missing.length === 0
      ? undefined
      : `there is no S3 server to test against (${missing.join(', ')}); install Debian's packages ceph-mon, ceph-osd and radosgw`,
  )
}

/** Starts one; takes some ten seconds. It ends with the test process, also when that is killed. */
export async function startS3Server(): Promise<TestS3Server> {
  const credentials = { accessKeyId: `AK${randomBytes(8).toString('hex')}`, secretAccessKey: randomBytes(20).toString('hex') }
  const folder = mkdtempSync(join(memoryFolder(), 'mags-s3-'))
  const [monitorPort, gatewayPort] = await freePorts()
  const script = join(import.meta.dirname, 's3-server.sh')
  const server = spawn('sh', [script, folder, String(monitorPort), String(gatewayPort), credentials.accessKeyId, credentials.secretAccessKey], {
    cwd: folder,
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', HOME: folder },
  })
  const ended = once(server, 'exit')
  let words = ''
  server.stderr.on('data', (chunk: Buffer) => {
    words = `${words}${chunk}`.slice(-4000)
  })
  server.stdin.on('error', () => undefined)
  const lines = createInterface(server.stdout)[Symbol.asyncIterator]()
  const hear = async (expected: string) => {
    const line = await lines.next()
    if (line.done || line.value !== expected) {
      server.stdin.end()
      await ended
      throw new Error(`the S3 server ended: ${words}`)
    }
  }
  await hear('ready')
  const endpoint = `http://127.0.0.1:${gatewayPort}`
  const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true, credentials })
  const tell = async (command: string) => {
    server.stdin.write(`${command}\n`)
    await hear('done')
  }
  let count = 0
  return {
    endpoint,
    credentials,
    createBucket: async () => {
      const bucket = `bucket-${++count}`
      await client.send(new CreateBucketCommand({ Bucket: bucket }))
      return bucket
    },
    stop: () => tell('stop'),
    start: () => tell('start'),
    [Symbol.asyncDispose]: async () => {
      client.destroy()
      server.stdin.end()
      await ended
    },
  }
}

/** The monitor syncs each step to its disk; behind gigabytes that a test has just written, one such sync takes minutes. */
function memoryFolder(): string {
  try {
    accessSync('/dev/shm', constants.W_OK)
    return '/dev/shm'
  } catch {
    return tmpdir()
  }
}

function isInstalled(program: string): boolean {
  return ['/usr/bin', '/usr/sbin', '/bin', '/sbin'].some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/** Two that are free now, below the range of ports for outgoing connections, so that no connection takes one meanwhile. */
async function freePorts(): Promise<[number, number]> {
  const found: number[] = []
  while (found.length < 2) {
    const port = 20_000 + Math.floor(Math.random() * 12_000)
    const probe = createServer().listen(port, '127.0.0.1')
    const free = await Promise.race([once(probe, 'listening').then(() => true), once(probe, 'error').then(() => false)])
    probe.close()
    if (free && !found.includes(port)) found.push(port)
  }
  return found as [number, number]
}
