import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { runMags } from '../kit/command-line.ts'
import { type DaemonPlace, makePlace, startDaemon, type TestDaemon } from '../kit/daemon.ts'
import { describeLane } from '../kit/describe-lane.ts'
import { isRunning, systemWords, untilStatus } from '../kit/jobs.ts'
import { leftOf } from '../kit/leaks.ts'
import { canTest, notRoot } from '../kit/require.ts'
import { missingForVms } from '../kit/vm-ground.ts'
import { ApiFailure, WorkspaceClient } from '../kit/workspace-client.ts'

/** Jobs that sleep, wake and are copied, by the real daemon over real sandboxes of both kinds. */
const able = canTest('MAGS_REQUIRE_CONTAINER', notRoot) && canTest('MAGS_REQUIRE_VM', missingForVms())
const counter = 'echo once >>/root/starts; i=0; while :; do i=$((i+1)); echo $i >/root/count.new; mv /root/count.new /root/count; done'
/** Ends at once and leaves its counter behind: nothing uses the job then. */
const leftCounter = `(${counter}) >/dev/null 2>&1 & exit 0`
const isAsleep = ({ status }: { readonly status: string }) => status === 'sleeping'

const timeoutMs = 300_000
/** For what comes by itself. */
const soon = { timeout: 30_000, interval: 50 }

/** A daemon of its own for the tests of one `describe`, which may start it anew, and what they do with it. */
function useDaemon() {
  const held = new AsyncDisposableStack()
  let place: DaemonPlace
  let daemon: TestDaemon
  let client: WorkspaceClient

  const start = async () => {
    daemon = await startDaemon(
      { MAGS_SLEEP_SECONDS: '2', MAGS_SLEEP_CHECK_SECONDS: '1', MAGS_RELEASE_SECONDS: '4', MAGS_POOL_MIN: '1', MAGS_SYNC_SECONDS: '3600' },
      place,
    )
    client = new WorkspaceClient(daemon)
  }
  beforeAll(async () => {
    place = held.use(await makePlace())
    await start()
  }, 180_000)
  afterAll(async () => {
    await daemon?.[Symbol.asyncDispose]()
    const left = daemon === undefined ? [] : leftOf(daemon)
    await held.disposeAsync()
    expect(left).toEqual([])
  }, 60_000)

  const count = async (id: string) => Number(await client.exec(id, 'cat /root/count'))
  return {
    start,
    count,
    daemon: () => daemon,
    client: () => client,
    open: async (job: Record<string, unknown>) => {
      const id = await client.submit({ persistent: true, memory_mb: 256, script: leftCounter, ...job })
      await untilStatus(client.mags, id, isRunning)
      return id
    },
    post: (id: string, verb: string, body: object = {}) => client.call<Record<string, unknown>>('POST', `mags-jobs/${id}/${verb}`, body),
    status: (id: string) => client.mags.status(id),
    mags: (...args: string[]) => runMags(args, { env: { HOME: daemon.home } }),
    /** The counter goes on from where it was, and was started once. */
    goesOn: async (id: string, from: number) => {
      const before = await count(id)
      expect(before).toBeGreaterThanOrEqual(from)
      await client.exec(id, `until [ "$(cat /root/count)" -gt ${before} ]; do sleep 0.05; done`)
      expect(await client.exec(id, 'cat /root/starts')).toBe('once\n')
    },
  }
}

async function refusal(call: Promise<unknown>) {
  const error = await call.then(
    () => undefined,
    (failure: unknown) => failure,
  )
  if (!(error instanceof ApiFailure)) throw new Error(`this is no refusal: ${error}`)
  return [error.status, error.body.code, error.body.error]
}

function testSleep(isolation: 'container' | 'vm') {
  describe.skipIf(!able)(`a ${isolation} that stays`, { timeout: timeoutMs }, () => {
    const { client, open, post, status, mags, count, goesOn } = useDaemon()
    it('sleeps by itself, though it is looked at, costs nothing then, and goes on at the next command', async () => {
      const id = await open({ isolation })
      const vmId = (await status(id)).vm_id ?? ''
      const before = ticks(vmId)
      await client().exec(id, 'until [ -s /root/count ]; do sleep 0.05; done')
      await vi.waitFor(() => expect(ticks(vmId)).toBeGreaterThan(before), soon)
      for (;;) {
        const { status: now } = await status(id)
        if (now === 'sleeping') break
        await client().mags.logs(id)
        await client().mags.list()
        await delay(50)
      }
      expect(await spent(vmId)).toBeLessThanOrEqual(2)
      expect(await status(id)).toMatchObject({ sleeping: true, sleep_stage: 'frozen', exit_code: 0, slept_at: expect.any(String) })
      expect(await client().call('GET', 'mags-jobs/pool-status')).toMatchObject({ sleeping_vms: 1 })
      expect(await systemWords(client().mags, id)).toMatch(/put to sleep: nothing used it for \d s/)
      await goesOn(id, 1)
      expect(await status(id)).toMatchObject({ status: 'running', sleeping: false, wake_reason: 'exec', wake_duration_ms: expect.any(Number), vm_id: vmId })
      await client().stop(id)
    })

    it('is kept awake by its script, until its URL is opened; by no_sleep until that is taken back', async () => {
      const id = await open({ isolation, name: `server-${isolation}`, script: 'exec sleep 100000' })
      const pinned = await open({ isolation, name: `pinned-${isolation}`, no_sleep: true })
      await delay(4000)
      expect([(await status(id)).status, (await status(pinned)).status]).toEqual(['running', 'running'])
      expect((await mags('set', pinned, '--sleep')).code).toBe(0)
      expect((await mags('url', id, '8080')).code).toBe(0)
      await Promise.all([id, pinned].map((one) => untilStatus(client().mags, one, isAsleep)))
      expect((await mags('wake', `pinned-${isolation}`)).code).toBe(0)
      expect((await mags('set', pinned, '--no-sleep')).code).toBe(0)
      const refused = await mags('sleep', pinned)
      expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('never put to sleep (no_sleep)')])
      expect((await mags('set', pinned, '--sleep')).code).toBe(0)
      expect(await mags('sleep', pinned)).toMatchObject({ code: 0 })
      expect((await status(pinned)).status).toBe('sleeping')
      await Promise.all([id, pinned].map((one) => client().stop(one)))
    })

    it('sleeps deeper after a while and comes back', async () => {
      const workspace =
        isolation === 'container'
          ? { workspace_id: 'deep', startup_command: 'echo "started in $PLACE"; echo again >>/root/starts', environment: { PLACE: 'here' } }
          : {}
      const id = await open({ isolation, ...workspace })
      await client().exec(id, 'echo kept >/root/file; until [ -s /root/count ]; do sleep 0.05; done')
      const before = await count(id)
      const { vm_id: vmId } = await status(id)
      const deep = await untilStatus(client().mags, id, ({ sleep_stage }) => sleep_stage === (isolation === 'vm' ? 'hibernated' : 'released'))
      expect(deep).toMatchObject({ status: 'sleeping', vm_id: isolation === 'vm' ? vmId : null })
      if (isolation === 'vm') {
        await vi.waitFor(() => expect(processesOf(vmId ?? '')).toEqual([]), soon)
        await goesOn(id, before)
      } else {
        expect(deep.workspace_version ?? 0).toBeGreaterThan(0)
        expect(await client().exec(id, 'cat /root/file; cat /root/starts')).toMatch(/^kept\nonce\n/)
        await vi.waitFor(async () => expect(await systemWords(client().mags, id)).toContain('started in here'), soon)
        await vi.waitFor(async () => expect(await client().exec(id, 'cat /root/starts')).toBe('once\nagain\n'), soon)
        expect((await client().mags.logs(id, { source: 'stdout' })).logs).toEqual([])
      }
      expect(await status(id)).toMatchObject({ status: 'running', wake_reason: 'exec' })
      await client().stop(id)
    })

    it('is stopped at any depth, also while it is woken twice', async () => {
      for (const release of [false, true]) {
        const id = await open({ isolation, ...(isolation === 'container' ? { workspace_id: 'stopped' } : {}) })
        await client().exec(id, `echo ${release} >>/root/file`)
        await post(id, 'sleep', { release })
        await client().stop(id)
        expect(await status(id)).toMatchObject({ status: 'stopped', error: null })
      }
      if (isolation === 'container') expect((await client().run('cat /root/file', { isolation, workspace_id: 'stopped' })).stdout).toBe('false\ntrue\n')
      const id = await open({ isolation })
      await post(id, 'sleep', { release: true })
      const [one, two, stop] = await Promise.allSettled([post(id, 'wake'), post(id, 'wake'), post(id, 'stop')])
      expect(stop.status).toBe('fulfilled')
      for (const wake of [one, two]) if (wake.status === 'rejected') expect(wake.reason).toMatchObject({ status: 400, body: { code: 'job_not_running' } })
      expect(await status(id)).toMatchObject({ status: 'stopped', error: null })
      expect(await refusal(post(id, 'wake'))).toEqual([
        400,
        'job_not_running',
        expect.stringMatching(/is over \(status: stopped\): wake needs one that runs or sleeps/),
      ])
    })

    it('is forked as it is at that moment, from and into a workspace or none', async () => {
      for (const [workspace, own] of [
        [undefined, undefined],
        [undefined, 'fork'],
        ['from', undefined],
        ['from', 'twin'],
      ]) {
        const id = await open({ isolation, script: 'exit 0', ...(workspace === undefined ? {} : { workspace_id: workspace }) })
        await client().exec(id, 'echo written >/root/file')
        const { request_id: copy } = await client().call<{ request_id: string }>('POST', `mags-jobs/${id}/fork`, own === undefined ? {} : { workspace_id: own })
        await client().stop(id)
        expect(await client().exec(copy, 'cat /root/file')).toBe('written\n')
        await client().stop(copy)
        if (own !== undefined) expect((await client().run('cat /root/file', { isolation, workspace_id: own })).stdout).toBe('written\n')
      }
    })
  })
}

function testAll() {
  describe.skipIf(!able)('sandboxes that stay', { timeout: timeoutMs }, () => {
    const { daemon, client, start, open, post, status, mags, count, goesOn } = useDaemon()

    it('a daemon that is killed or stopped finds all of them again, as deep asleep as they were', { timeout: 400_000 }, async () => {
      const jobs = [
        { isolation: 'container', name: 'c', script: counter },
        { isolation: 'container', name: 'w', workspace_id: 'w', script: 'echo once >/root/starts; sleep 100000', startup_command: 'echo up' },
        { isolation: 'vm', name: 'v', script: counter },
      ]
      const ids = await Promise.all(jobs.map((job) => open(job)))
      const [container = '', workspace = '', machine = ''] = ids
      await Promise.all([container, machine].map((id) => client().exec(id, 'until [ -s /root/count ]; do sleep 0.05; done')))
      await client().exec(workspace, 'until [ -s /root/starts ]; do sleep 0.05; done; echo first >/root/file')
      const stages = async () => Promise.all(ids.map(async (id) => (await status(id)).sleep_stage))
      for (const [depth, end] of [
        ['awake', 'crash'],
        ['frozen', 'crash'],
        ['frozen', 'stop'],
        ['deep', 'crash'],
        ['deep', 'stop'],
      ] as const) {
        const counts = await Promise.all([container, machine].map(count))
        if (depth !== 'awake') await Promise.all(ids.map((id) => post(id, 'sleep', { release: depth === 'deep' })))
        const before = await stages()
        await daemon()[end]()
        await start()
        // What sleeps may sleep deeper by now, but nothing is awake that was not.
        const after = await stages()
        expect(after.map((stage) => stage !== null)).toEqual(before.map((stage) => stage !== null))
        if (depth === 'deep') expect(after).toEqual(['frozen', 'released', 'hibernated'])
        await Promise.all([goesOn(container, counts[0] ?? 0), goesOn(machine, counts[1] ?? 0)])
        expect(await client().exec(workspace, 'cat /root/file /root/starts')).toBe('first\nonce\n')
        for (const id of ids) expect(await status(id)).toMatchObject({ status: 'running', exit_code: null })
      }
      expect(await systemWords(client().mags, workspace)).toContain('\nup')
      await Promise.all(ids.map((id) => client().stop(id)))
    })

    it('a fork has the files, and in a virtual machine the programs, too', async () => {
      const [machine, box] = await Promise.all([
        open({ isolation: 'vm', name: 'm', script: `${counter.replace('done', 'echo $i; done')}`, environment: { WHO: 'me' } }),
        open({ isolation: 'container', name: 'b', workspace_id: 'b', startup_command: 'echo "up with $(cat /root/file)"', egress: 'none' }),
      ])
      await client().exec(machine, 'until [ -s /root/count ]; do sleep 0.05; done')
      await client().exec(box, 'echo first >/root/file')
      // One that a crash ends in the middle never was, or is whole.
      const named = async () => (await client().mags.list()).jobs.filter(({ name }) => name === 'm-fork')
      void post(machine, 'fork').catch(() => undefined)
      await vi.waitFor(async () => expect(await named()).toHaveLength(1), soon)
      await daemon().crash()
      await start()
      for (const { request_id: id } of await named()) {
        await goesOn(id, 1)
        await client().stop(id)
      }
      await goesOn(machine, 1)
      const passing = await client().submit({ script: 'sleep 100', isolation: 'container', name: 'p' })
      const before = await count(machine)
      const copied = await mags('fork', 'm', '--json')
      expect(copied.code, copied.stderr).toBe(0)
      const copy = JSON.parse(copied.stdout) as { request_id: string; with_memory: boolean; name: string }
      expect(copy).toMatchObject({ name: expect.stringMatching(/^m-fork/), with_memory: true })
      await Promise.all([goesOn(machine, before), goesOn(copy.request_id, before)])
      const [first] = (await client().mags.logs(copy.request_id, { source: 'stdout', limit: 10 })).logs
      expect(Number(first?.message)).toBeGreaterThan(1)
      const outside = await Promise.all([machine, copy.request_id].map((id) => client().exec(id, 'hostname; hostname -I; echo $WHO')))
      expect(outside[0]).not.toBe(outside[1])
      // The script is the copy's own: its end is noticed.
      await client().exec(copy.request_id, 'kill -9 -1')
      expect((await untilStatus(client().mags, copy.request_id, ({ exit_code }) => exit_code !== null)).status).toBe('running')
      expect(await status(machine)).toMatchObject({ status: 'running', exit_code: null })

      await post(box, 'sleep', { release: true })
      const twinned = await mags('fork', 'b', '-n', 'twin', '-w', 'twin', '--json')
      expect(twinned.code, twinned.stderr).toBe(0)
      const { request_id: twin, with_memory: withMemory } = JSON.parse(twinned.stdout) as typeof copy
      expect(withMemory).toBe(false)
      expect(await status(twin)).toMatchObject({
        name: 'twin',
        workspace_id: 'twin',
        egress: 'none',
        forked_from: box,
        startup_command: 'echo "up with $(cat /root/file)"',
      })
      await vi.waitFor(async () => expect(await systemWords(client().mags, twin)).toContain('up with first'), soon)
      await client().exec(twin, 'echo second >/root/file')
      expect(await client().exec(box, 'cat /root/file')).toBe('first\n')
      await vi.waitFor(async () => expect((await status(twin)).workspace_version).toBeGreaterThan(0), soon)
      await post(twin, 'sleep', { release: true })
      expect(await client().exec(twin, 'cat /root/file')).toBe('second\n')
      expect(await systemWords(client().mags, box)).toContain(`forked into twin (${twin})`)

      expect(await refusal(post('p', 'fork'))).toEqual([400, 'bad_request', 'job p is not persistent: fork needs a job submitted with persistent'])
      expect(await refusal(post('b', 'fork', { workspace_id: 'twin' }))).toEqual([
        409,
        'already_exists',
        expect.stringContaining("workspace 'twin' already exists"),
      ])
      await Promise.all([machine, copy.request_id, box, twin, passing].map((id) => client().stop(id)))
      expect(await refusal(post(twin, 'fork'))).toEqual([400, 'job_not_running', 'job twin is over (status: stopped): fork needs one that runs or sleeps'])
    })
  })
}

describeLane('one kind', () => {
  testSleep('container')
  testSleep('vm')
})
describeLane('both kinds', testAll)

/** Clock ticks that its processes have used in half a second. */
async function spent(vmId: string): Promise<number> {
  const before = ticks(vmId)
  await delay(500)
  return ticks(vmId) - before
}

function ticks(vmId: string): number {
  // proc(5), stat: fields 14 and 15, counted behind the name, which may have spaces.
  const used = processesOf(vmId).map((pid) => read(`/proc/${pid}/stat`).split(') ').at(-1)?.split(' ') ?? [])
  return used.reduce((sum, fields) => sum + Number(fields[11] ?? 0) + Number(fields[12] ?? 0), 0)
}

/** Processes of a sandbox: by their control group, and QEMU by its command line, too. */
function processesOf(vmId: string): string[] {
  return readdirSync('/proc').filter(
    (name) => /^\d+$/.test(name) && [`/proc/${name}/cgroup`, `/proc/${name}/cmdline`].some((file) => read(file).includes(vmId)),
  )
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
