import { createHash } from 'node:crypto'
import process from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type CuttingProxy, startCuttingProxy } from '../kit/cutting-proxy.ts'
import { type DaemonPlace, makePlace, startDaemon, type TestDaemon } from '../kit/daemon.ts'
import { leftOf } from '../kit/leaks.ts'
import { seededRandom } from '../kit/random.ts'
import { canTest, notRoot } from '../kit/require.ts'
import { canTestS3, startS3Server, type TestS3Server } from '../kit/s3-server.ts'
import { s3Environment } from '../kit/store-environment.ts'
import { WorkspaceClient } from '../kit/workspace-client.ts'

/** Server, object store or both die at random moments; no workspace may ever read back as anything but a state that was acknowledged, or a later one. 500 runs with each store with MAGS_LONG=1. */
const runs = process.env.MAGS_LONG === '1' ? 500 : 12
const seed = Number(process.env.MAGS_SEED ?? 20_261_122)
const filesPerGeneration = 20
const longestLifeMs = 700

const contentOf = (generation: number, file: number) => `${`${generation}-${file} `.repeat(400)}\n`

/** A generation is whole or not there: it is made aside and renamed. `current` never goes back. */
const write = (generation: number) => `set -e; cd /root; rm -rf g${generation}.part g${generation}; mkdir g${generation}.part
for f in $(seq ${filesPerGeneration}); do i=0; while [ $i -lt 400 ]; do printf '%s-%s ' ${generation} $f; i=$((i+1)); done > g${generation}.part/$f; echo >> g${generation}.part/$f; done
mv g${generation}.part g${generation}; ln -sfn g${generation} current.new; mv -T current.new current; rm -rf g${generation - 4}`
const read = `cd /root; readlink current || exit 0; for g in $(ls -d g* | grep -v part); do echo "$g $(cd $g; cat $(ls | sort -n) | sha256sum | cut -d' ' -f1)"; done`

function digestOf(generation: number) {
  const hash = createHash('sha256')
  for (let file = 1; file <= filesPerGeneration; file++) hash.update(contentOf(generation, file))
  return hash.digest('hex')
}

/** The generation that is current; every whole one has been checked byte for byte. */
function currentOf(stdout: string): number {
  const [current = 'g0', ...generations] = stdout.trim().split('\n')
  for (const line of generations.filter((text) => text !== '')) {
    const [name = '', digest] = line.split(' ')
    expect({ name, digest }).toEqual({ name, digest: digestOf(Number(name.slice(1))) })
  }
  const number = Number((current || 'g0').slice(1))
  if (number > 0) expect(generations.some((line) => line.startsWith(`g${number} `))).toBe(true)
  return number
}

for (const store of ['folder', 's3'] as const) {
  describe
    .runIf(canTest('MAGS_REQUIRE_CONTAINER', notRoot) && (store === 'folder' || canTestS3()))
    .concurrent(`a workspace while things die, stored in ${store}`, () => {
      let place: DaemonPlace & AsyncDisposable
      let server: TestS3Server | undefined
      let proxy: CuttingProxy | undefined
      let environment: Record<string, string>
      let daemon: TestDaemon | undefined

      beforeAll(async () => {
        place = await makePlace()
        server = store === 's3' ? await startS3Server() : undefined
        const target = server === undefined ? undefined : new URL(server.endpoint)
        proxy = target === undefined ? undefined : await startCuttingProxy({ host: target.hostname, port: Number(target.port) })
        environment = {
          MAGS_ISOLATION: 'container',
          MAGS_POOL_MIN: '1',
          MAGS_SAVE_WAIT_SECONDS: '2',
          ...(server === undefined ? {} : await s3Environment(server)),
          ...(proxy === undefined ? {} : { MAGS_S3_ENDPOINT: `http://127.0.0.1:${proxy.port}` }),
        }
      }, 240_000)

      afterAll(async () => {
        await daemon?.stop()
        const left = daemon === undefined ? [] : leftOf(daemon)
        await proxy?.[Symbol.asyncDispose]()
        await server?.[Symbol.asyncDispose]()
        await place[Symbol.asyncDispose]()
        expect(left).toEqual([])
      }, 60_000)

      it(`keeps what was acknowledged over ${runs} runs (seed ${seed})`, async () => {
        const random = seededRandom(seed)
        let acknowledged = 0
        let generation = 0
        for (let run = 0; run < runs; run++) {
          const words = () => `run ${run}, acknowledged ${acknowledged}`
          proxy?.mend()
          daemon = await startDaemon(environment, place)
          const client = new WorkspaceClient(daemon)
          if (await finishPending(client, generation)) acknowledged = generation
          const check = await client.run(read, { workspace_id: 'survivor' })
          expect(check.status, `${words()}: ${check.error}`).toBe('completed')
          const current = currentOf(check.stdout)
          expect(current, words()).toBeGreaterThanOrEqual(acknowledged)
          acknowledged = current
          generation = Math.max(generation, current) + 1
          // Nobody waits for the answer of a server that is killed.
          const ended = client.run(write(generation), { workspace_id: 'survivor', name: `write-${generation}` }).catch(() => undefined)
          const storeDies = proxy !== undefined && random() < 0.5
          const serverDies = !storeDies || random() < 0.7
          await delay(random() * longestLifeMs)
          if (storeDies) proxy?.cut()
          if (storeDies) await delay(random() * 200)
          if (serverDies) await daemon.crash()
          const result = await ended
          if (result?.status === 'completed') acknowledged = generation
          if (!serverDies) await daemon.stop()
        }
        proxy?.mend()
        daemon = await startDaemon(environment, place)
        const client = new WorkspaceClient(daemon)
        await finishPending(client, generation)
        const last = await client.run(read, { workspace_id: 'survivor' })
        expect(currentOf(last.stdout)).toBeGreaterThanOrEqual(acknowledged)
        await everyVersionReads(client)
      }, 3_600_000)
    })
}

/** A job that had not begun runs after the restart; whether the newest wrote this generation and ended well. */
async function finishPending(client: WorkspaceClient, generation: number): Promise<boolean> {
  const { jobs } = await client.call<{ jobs: { request_id: string; name: string }[] }>('GET', 'mags-jobs?page_size=1')
  const [newest] = jobs
  if (newest === undefined) return false
  const { status } = await client.ended(newest.request_id)
  return status === 'completed' && newest.name === `write-${generation}`
}

/** Also versions of long ago are what they were; and nothing holds the workspace. */
async function everyVersionReads(client: WorkspaceClient) {
  const { versions } = await client.call<{ versions: { version: number }[] }>('GET', 'mags-workspaces/survivor/versions?page_size=100')
  const step = Math.max(1, Math.floor(versions.length / 10))
  let newer = Number.POSITIVE_INFINITY
  for (const { version } of versions.filter((_, index) => index % step === 0)) {
    await client.call('POST', 'mags-workspaces/survivor/restore', { version })
    const result = await client.run(read, { workspace_id: 'survivor' })
    expect(result.status, result.error ?? '').toBe('completed')
    const current = currentOf(result.stdout)
    expect(current).toBeLessThanOrEqual(newer)
    newer = current
  }
}
