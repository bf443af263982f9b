import { execFileSync } from 'node:child_process'
import { open, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { runMags } from '../kit/command-line.ts'
import { type CuttingProxy, startCuttingProxy } from '../kit/cutting-proxy.ts'
import { type DaemonPlace, makePlace, startDaemon, type TestDaemon } from '../kit/daemon.ts'
import { describeLane } from '../kit/describe-lane.ts'
import { isRunning, untilStatus } from '../kit/jobs.ts'
import { leftOf } from '../kit/leaks.ts'
import { canTest, notRoot } from '../kit/require.ts'
import { canTestS3, startS3Server, type TestS3Server } from '../kit/s3-server.ts'
import { s3Environment } from '../kit/store-environment.ts'
import { ApiFailure, WorkspaceClient } from '../kit/workspace-client.ts'

const saveWaitSeconds = 3
const common = { MAGS_ISOLATION: 'container', MAGS_POOL_MIN: '1', MAGS_SAVE_WAIT_SECONDS: String(saveWaitSeconds), MAGS_SYNC_SECONDS: '1' }
const keptWords = `could not be saved within ${saveWaitSeconds} s; its changes are kept on this machine and saved later`

interface WorkspaceWire {
  readonly version: number
  readonly unsaved_since: string | null
  readonly save_error: string | null
}

/** One daemon over one place, started and stopped as a test needs. */
class Setup {
  readonly place: DaemonPlace & AsyncDisposable
  readonly environment: Record<string, string>
  #daemon: TestDaemon | undefined
  #client: WorkspaceClient | undefined

  constructor(place: DaemonPlace & AsyncDisposable, environment: Record<string, string>) {
    this.place = place
    this.environment = environment
  }

  get daemon(): TestDaemon {
    if (this.#daemon === undefined) throw new Error('no daemon was started')
    return this.#daemon
  }

  get client(): WorkspaceClient {
    if (this.#client === undefined) throw new Error('no daemon was started')
    return this.#client
  }

  async start() {
    this.#daemon = await startDaemon(this.environment, this.place)
    this.#client = new WorkspaceClient(this.#daemon)
  }

  async stop(): Promise<string[]> {
    if (this.#daemon === undefined) return []
    await this.#daemon.stop()
    return leftOf(this.#daemon)
  }

  workspace(id: string) {
    return this.client.call<WorkspaceWire>('GET', `mags-workspaces/${id}`)
  }

  /** The background needs no help. */
  async untilSaved(id: string): Promise<WorkspaceWire> {
    await vi.waitFor(async () => expect((await this.workspace(id)).unsaved_since).toBeNull(), { timeout: 60_000, interval: 100 })
    return await this.workspace(id)
  }

  async systemRows(id: string): Promise<string[]> {
    return (await this.client.mags.logs(id, { source: 'system', limit: 1000 })).logs.map(({ message }) => message)
  }

  command(...args: string[]) {
    return runMags(args, { env: { HOME: this.place.home, MAGS_API_URL: this.daemon.url, MAGS_API_TOKEN: this.daemon.token } })
  }
}

/** Lets a script end that waits for it. Its sandbox may be gone before the answer is here. */
async function letGo(client: WorkspaceClient, id: string) {
  await client.exec(id, 'touch /run/go').catch((error: unknown) => {
    if (!(error instanceof ApiFailure) || error.body.code !== 'sandbox_failed') throw error
  })
}

const failureOf = (promise: Promise<unknown>) => promise.then(() => undefined).catch((error: unknown) => error)

const whileAway = () => {
  let server: TestS3Server
  let proxy: CuttingProxy
  let setup: Setup

  beforeAll(async () => {
    server = await startS3Server()
    const target = new URL(server.endpoint)
    proxy = await startCuttingProxy({ host: target.hostname, port: Number(target.port) })
    const environment = { ...common, ...(await s3Environment(server)), MAGS_S3_ENDPOINT: `http://127.0.0.1:${proxy.port}` }
    setup = new Setup(await makePlace(), environment)
    await setup.start()
  }, 240_000)

  afterAll(async () => {
    proxy.mend()
    const left = await setup.stop()
    await setup.place[Symbol.asyncDispose]()
    await proxy[Symbol.asyncDispose]()
    await server[Symbol.asyncDispose]()
    expect(left).toEqual([])
  }, 60_000)

  /** The store goes once the script runs, so that the end of the job finds none. */
  const runWhileItGoes = async (script: string, workspace: string) => {
    const id = await setup.client.submit({ script: `${script}; while [ ! -e /run/go ]; do sleep 0.1; done`, workspace_id: workspace })
    await untilStatus(setup.client.mags, id, isRunning)
    proxy.cut()
    await letGo(setup.client, id)
    return await setup.client.ended(id)
  }

  it('a running sandbox goes on, says since when it is not saved, and is saved when the store is back', async () => {
    const { client } = setup
    const id = await client.open({ workspace_id: 'away', name: 'away-job' })
    await client.exec(id, 'echo before > /root/before')
    await client.sync(id)
    proxy.cut()
    try {
      await client.exec(id, 'echo during > /root/during')
      const status = await untilStatus(client.mags, id, (now) => (now.workspace_unsaved_since ?? null) !== null)
      expect(status.status).toBe('running')
      const { workspaces } = await client.call<{ workspaces: (WorkspaceWire & { workspace_id: string })[] }>('GET', 'mags-workspaces')
      expect(workspaces.find(({ workspace_id: name }) => name === 'away')?.unsaved_since).toBe(status.workspace_unsaved_since)
      expect((await setup.command('status', 'away-job')).stdout).toContain(`not saved since ${status.workspace_unsaved_since}`)
      expect((await setup.command('workspace', 'list')).stdout).toContain(`not saved since ${status.workspace_unsaved_since}`)
      const refused = await failureOf(client.sync(id))
      expect(refused).toBeInstanceOf(ApiFailure)
      expect(refused).toMatchObject({ status: 503, body: { code: 'object_store_unavailable' } })
      expect(await client.exec(id, 'cat /root/before /root/during')).toBe('before\nduring\n')
    } finally {
      proxy.mend()
    }
    await untilStatus(client.mags, id, (now) => now.workspace_unsaved_since === null)
    expect(await client.run('cat /root/during', { base_workspace_id: 'away' })).toMatchObject({ status: 'completed', stdout: 'during\n' })
    const rows = await setup.systemRows(id)
    expect(rows.filter((row) => row.startsWith("workspace 'away' cannot be saved at the moment: "))).toHaveLength(1)
    expect(rows.filter((row) => row.startsWith("workspace 'away' is saved again (version "))).toHaveLength(1)
    await client.stop(id)
  }, 120_000)

  it('a job that ends meanwhile is an error, and the background saves what it left', async () => {
    await setup.client.run('echo one > /root/one', { workspace_id: 'ended' })
    try {
      const ended = await runWhileItGoes('echo two > /root/two', 'ended')
      expect(ended).toMatchObject({ status: 'error', exitCode: 0, version: 1, error: `workspace 'ended' ${keptWords}` })
      expect((await setup.workspace('ended')).unsaved_since).not.toBeNull()
      const next = await setup.client.run('exit 0', { workspace_id: 'ended' })
      expect(next).toMatchObject({ status: 'error', exitCode: null })
      expect(next.error).toContain('the store does not answer as it should')
      expect((await setup.workspace('ended')).unsaved_since).not.toBeNull()
    } finally {
      proxy.mend()
    }
    expect(await setup.untilSaved('ended')).toMatchObject({ version: 2, save_error: null })
    expect(await setup.client.run('cat /root/one /root/two', { workspace_id: 'ended' })).toMatchObject({
      status: 'completed',
      stdout: 'one\ntwo\n',
      version: 2,
    })
  }, 120_000)

  it('the next job goes on from what is not saved yet', async () => {
    try {
      expect(await runWhileItGoes('echo two > /root/two', 'next')).toMatchObject({ status: 'error', exitCode: 0, error: `workspace 'next' ${keptWords}` })
    } finally {
      proxy.mend()
    }
    expect(await setup.client.run('cat /root/two; echo three > /root/three', { workspace_id: 'next' })).toMatchObject({ status: 'completed', stdout: 'two\n' })
    expect(await setup.workspace('next')).toMatchObject({ unsaved_since: null, save_error: null })
    expect(await setup.client.run('cat /root/two /root/three', { base_workspace_id: 'next' })).toMatchObject({ status: 'completed', stdout: 'two\nthree\n' })
  }, 120_000)

  it('mags run ends with 1 although the script ended with 0', async () => {
    const command = setup.command('run', '-w', 'command', '--name', 'commanded', 'echo out; while [ ! -e /run/go ]; do sleep 0.1; done')
    try {
      const { client } = setup
      await vi.waitFor(async () => expect((await client.mags.list({ pageSize: 1 })).jobs[0]?.name).toBe('commanded'), { timeout: 30_000 })
      const [job] = (await client.mags.list({ pageSize: 1 })).jobs
      await untilStatus(client.mags, job?.request_id ?? '', isRunning)
      proxy.cut()
      await letGo(client, job?.request_id ?? '')
      const { code, stdout, stderr } = await command
      expect({ code, stdout }).toEqual({ code: 1, stdout: 'out\n' })
      expect(stderr).toContain(`workspace 'command' ${keptWords}`)
    } finally {
      proxy.mend()
    }
    await setup.untilSaved('command')
  }, 120_000)

  it('survives a restart of the server with it away, which serves jobs without workspaces meanwhile', async () => {
    try {
      await setup.client.run('echo kept > /root/kept', { workspace_id: 'restart' })
      expect(await runWhileItGoes('echo left > /root/left', 'restart')).toMatchObject({ status: 'error', exitCode: 0 })
      await setup.daemon.stop()
      await setup.start()
      expect(await setup.client.run('echo works')).toMatchObject({ status: 'completed', stdout: 'works\n' })
      const refused = await setup.client.run('exit 0', { workspace_id: 'restart' })
      expect(refused).toMatchObject({ status: 'error', exitCode: null })
      expect(refused.error).toContain('the store does not answer as it should')
    } finally {
      proxy.mend()
    }
    expect(await setup.untilSaved('restart')).toMatchObject({ version: 2 })
    expect(await setup.client.run('cat /root/kept /root/left', { workspace_id: 'restart' })).toMatchObject({ status: 'completed', stdout: 'kept\nleft\n' })
  }, 180_000)

  it.each([
    ['a wrong secret', { MAGS_S3_SECRET_ACCESS_KEY: 'wrong' }, /the secret does not fit the access key; check MAGS_S3_SECRET_ACCESS_KEY/],
    ['a key that is not known', { MAGS_S3_ACCESS_KEY_ID: 'nobody' }, /the access key is not known there; check MAGS_S3_ACCESS_KEY_ID/],
    ['a bucket that is not there', { MAGS_S3_BUCKET: 'nowhere' }, /there is no such bucket; create it, or check MAGS_S3_BUCKET/],
  ])(
    'the server does not start with %s, and says why',
    async (_, wrong, words) => {
      await using place = await makePlace()
      const failure = await failureOf(startDaemon({ ...setup.environment, ...wrong }, place))
      expect(failure).toBeInstanceOf(Error)
      expect((failure as Error).message).toMatch(/^the server ended: /)
      expect((failure as Error).message).toMatch(words)
    },
    60_000,
  )
}

const whileFailing = () => {
  let setup: Setup
  let objects: string
  const mount = (...args: string[]) => execFileSync('mount', args)

  beforeAll(async () => {
    const place = await makePlace()
    objects = join(place.dataDir, 'objects')
    execFileSync('mkdir', ['-p', objects])
    mount('-t', 'tmpfs', '-o', 'size=16m,mode=0700', 'tmpfs', objects)
    setup = new Setup(place, common)
    await setup.start()
  }, 240_000)

  afterAll(async () => {
    const left = await setup.stop()
    execFileSync('umount', [objects])
    await setup.place[Symbol.asyncDispose]()
    expect(left.filter((thing) => thing !== `mount ${objects}`)).toEqual([])
  }, 60_000)

  it('a full one is named, loses nothing, and is used again once it has room', async () => {
    const full = await setup.client.run('head -c 40000000 /dev/urandom > /root/big; sha256sum /root/big', { workspace_id: 'full' })
    expect(full).toMatchObject({ status: 'error', exitCode: 0, error: `workspace 'full' ${keptWords}` })
    expect(await setup.systemRows(full.id)).toEqual(
      expect.arrayContaining([expect.stringMatching(/cannot be saved at the moment: .*objects.*the disk is full; free some space there \(ENOSPC\)/)]),
    )
    await vi.waitFor(async () => expect((await setup.workspace('full')).save_error).toMatch(/the disk is full/), { timeout: 30_000 })
    mount('-o', 'remount,size=200m', objects)
    expect(await setup.untilSaved('full')).toMatchObject({ version: 1, save_error: null })
    await setup.client.call('POST', 'mags-workspaces/full/restore', { version: 1 })
    expect(await setup.client.run('sha256sum /root/big', { workspace_id: 'full' })).toMatchObject({ status: 'completed', stdout: full.stdout })
  }, 180_000)

  it('one that is not what it should be is named, and the background saves once it was set right', async () => {
    const id = await setup.client.submit({ script: 'echo x > /root/x; while [ ! -e /run/go ]; do sleep 0.1; done', workspace_id: 'refused' })
    await untilStatus(setup.client.mags, id, isRunning)
    await rename(join(objects, 'objects/packs'), join(objects, 'aside'))
    await writeFile(join(objects, 'objects/packs'), 'no folder')
    await setup.client.exec(id, 'echo y > /root/y')
    await letGo(setup.client, id)
    const ended = await setup.client.ended(id)
    expect(ended).toMatchObject({ status: 'error', exitCode: 0 })
    expect(ended.error).toMatch(/^workspace 'refused' could not be saved: .*objects: cannot .* there is an object where a folder should be \(ENOTDIR\)/)
    expect(ended.error).toMatch(/; its changes are kept on this machine and saved later$/)
    await rm(join(objects, 'objects/packs'))
    await rename(join(objects, 'aside'), join(objects, 'objects/packs'))
    expect(await setup.untilSaved('refused')).toMatchObject({ save_error: null })
    expect(await setup.client.run('cat /root/x /root/y', { workspace_id: 'refused' })).toMatchObject({ status: 'completed', stdout: 'x\ny\n' })
  }, 120_000)

  it('a damaged pack is named, and an earlier version can be restored', async () => {
    await setup.client.run('head -c 300000 /dev/urandom > /root/one; sha256sum /root/one', { workspace_id: 'damaged' })
    const before = new Set(await packs(objects))
    const { stdout } = await setup.client.run('sha256sum /root/one', { base_workspace_id: 'damaged' })
    await setup.client.run('head -c 300000 /dev/urandom > /root/two', { workspace_id: 'damaged' })
    const fresh = (await packs(objects)).filter((pack) => !before.has(pack))
    expect(fresh.length).toBeGreaterThan(0)
    for (const pack of fresh) await flipByte(join(objects, 'objects', pack))
    await setup.daemon.stop()
    for (const name of ['layers', 'workspaces']) await rm(join(setup.place.dataDir, name), { recursive: true })
    await setup.start()
    const damaged = await setup.client.run('exit 0', { workspace_id: 'damaged' })
    expect(damaged).toMatchObject({ status: 'error', exitCode: null })
    expect(
      fresh.some((pack) => damaged.error?.includes(pack)),
      `${damaged.error} names one of ${fresh}`,
    ).toBe(true)
    expect(await failureOf(setup.client.call('GET', 'mags-workspaces/damaged/diff?from=1&to=2'))).toMatchObject({ body: { code: 'workspace_damaged' } })
    await setup.client.call('POST', 'mags-workspaces/damaged/restore', { version: 1 })
    expect(await setup.client.run('sha256sum /root/one; ls /root', { workspace_id: 'damaged' })).toMatchObject({
      status: 'completed',
      stdout: `${stdout}one\n`,
    })
  }, 180_000)
}

describeLane('an object store', () =>
  describe.runIf(canTest('MAGS_REQUIRE_CONTAINER', notRoot) && canTestS3())('workspaces while the object store is away', whileAway),
)
describeLane('a folder', () => describe.runIf(canTest('MAGS_REQUIRE_CONTAINER', notRoot))('workspaces while their folder fails', whileFailing))

async function packs(objects: string): Promise<string[]> {
  const names = await readdir(join(objects, 'objects', 'packs'), { recursive: true, withFileTypes: true })
  return names.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name).slice(join(objects, 'objects').length + 1))
}

async function flipByte(file: string) {
  await using handle = await open(file, 'r+')
  const { size } = await handle.stat()
  const { buffer } = await handle.read(Buffer.alloc(1), 0, 1, Math.floor(size / 2))
  await handle.write(Buffer.from([(buffer[0] ?? 0) ^ 1]), 0, 1, Math.floor(size / 2))
}
