import { MagsError } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { databaseKinds, lacksDatabase, useTestDatabases } from '../../../../tests/kit/test-databases.ts'
import { MicrovmWorld } from '../testing/microvm-world.ts'
import { startWaitMs, stopWaitMs } from './change-microvm.ts'
import { powerOffWaitMs } from './power-off.ts'

const poll = { timeout: 10_000, interval: 5 }
const exited = { kind: 'exited', exitCode: 0 } as const

describe.each(databaseKinds)('microVMs over time on %s', (kind) => {
  describe.skipIf(lacksDatabase(kind))('server', () => {
    const newDatabase = useTestDatabases(kind)
    const newWorld = () => new MicrovmWorld(newDatabase())

    it('keeps its disk, port, URL and keys over stop and start', async () => {
      await using world = newWorld()
      const vms = await world.start()
      const before = await vms.running()
      world.sandbox().files.put('/etc/mine', 'kept')
      expect(await vms.act('stop')).toEqual({ success: true, status: 'stopped' })
      expect(world.host.sandboxes.size).toBe(0)
      expect(await vms.act('stop')).toEqual({ success: true, status: 'stopped' })
      expect(await vms.get()).toMatchObject({ status: 'stopped', error: null, url: before.url, ssh_port: before.ssh_port, ip_address: '' })
      expect(await vms.act('start')).toEqual({ success: true, status: 'running' })
      expect(await vms.act('start')).toEqual({ success: true, status: 'running' })
      expect(world.sandbox().files.tree.get('/etc/mine')?.content.toString()).toBe('kept')
      const after = await vms.get()
      expect(after).toMatchObject({ status: 'running', url: before.url, ssh_port: before.ssh_port, image_digest: 'sha256:d12', error: null })
      expect(after.request_id).not.toBe(before.request_id)
      expect(world.host.acquired).toHaveLength(2)
    })

    it('runs once its services are up, and can be stopped before', async () => {
      await using world = newWorld()
      const vms = await world.start()
      await vms.running()
      await vms.act('stop')
      const services = Promise.withResolvers<void>()
      world.host.booted = services.promise
      const starting = vms.act('start')
      await expect.poll(() => world.host.sandboxes.size, poll).toBe(1)
      expect(await vms.get()).toMatchObject({ status: 'creating' })
      services.resolve()
      expect(await starting).toEqual({ success: true, status: 'running' })
      expect(await vms.get()).toMatchObject({ status: 'running' })
      await vms.act('stop')
      world.host.booted = new Promise(() => undefined)
      const again = vms.act('start')
      await expect.poll(() => world.host.sandboxes.size, poll).toBe(1)
      expect(await vms.act('stop')).toEqual({ success: true, status: 'stopped' })
      expect(await again).toMatchObject({ success: true, status: expect.stringMatching(/^stopp(ing|ed)$/) })
      expect(await vms.get()).toMatchObject({ status: 'stopped' })
    })

    it('is what the routes for jobs know by its name and its id, unless a job has that name', async () => {
      await using world = newWorld()
      const vms = await world.start()
      const { id, name, request_id } = await vms.running()
      expect(await vms.mags.status(name)).toMatchObject({ request_id })
      expect(await vms.mags.status(id)).toMatchObject({ request_id })
      expect((await vms.mags.call('POST', `/mags-jobs/${name}/access`, { port: 80 })).status).toBe(200)
      const ofJob = await vms.mags.submit({ script: 'exit 0', name })
      expect(await vms.mags.status(name)).toMatchObject({ request_id: ofJob })
      expect(await vms.mags.status(id)).toMatchObject({ request_id })
    })

    it('goes on with the version of its image, its port, its rules and its grown disk', async () => {
      await using world = newWorld()
      const vms = await world.start()
      const { request_id, workspace_id } = await vms.running({ egress: 'none' })
      expect((await vms.mags.call('PATCH', `/mags-jobs/${request_id}`, { port: 3000 })).status).toBe(200)
      await vms.act('stop')
      await vms.mags.call('PATCH', `/mags-workspaces/${workspace_id}`, { disk_gb: 12 })
      await world.host.images.create('debian-12', { kind: 'recipe', recipe: 'debian-12' }, () => undefined)
      await vms.act('start')
      expect(world.host.acquired.at(-1)).toMatchObject({ image: 'debian-12', imageDigest: 'sha256:d12', diskGb: 12, egress: 'none' })
      expect(await vms.get()).toMatchObject({ port: 3000, disk: 12 })
    })

    it('powers off before it saves, and does not wait for ever for that', async () => {
      await using world = newWorld()
      const vms = await world.start()
      const { request_id } = await vms.running()
      await vms.act('stop')
      // Its init ended by itself, so there was nothing to end.
      expect(await vms.mags.status(request_id ?? '')).toMatchObject({ status: 'stopped', exit_code: 0 })
      await vms.act('start')
      world.host.heedsPowerOff = false
      const stopping = vms.act('stop')
      await vms.becomes('stopping')
      await world.endWait(powerOffWaitMs)
      expect(await stopping).toEqual({ success: true, status: 'stopped' })
    })

    it('answers before it is stopped when that takes long, and says what came of it', async () => {
      await using world = newWorld()
      const vms = await world.start()
      await vms.running()
      const gate = Promise.withResolvers<void>()
      world.host.workspaces.beforeSave = () => gate.promise
      const stopping = vms.act('stop')
      await vms.becomes('stopping')
      await world.endWait(stopWaitMs)
      expect(await stopping).toEqual({ success: true, status: 'stopping' })
      gate.resolve()
      await vms.becomes('stopped')
    })

    it('answers before it runs when that takes long', async () => {
      const gate = Promise.withResolvers<void>()
      await using world = new MicrovmWorld(newDatabase(), { beforeAcquire: () => gate.promise })
      const vms = await world.start()
      expect((await vms.create()).body).toMatchObject({ status: 'creating', started_at: null, isolation: null })
      const starting = vms.act('start')
      await world.endWait(startWaitMs)
      expect(await starting).toEqual({ success: true, status: 'creating' })
      gate.resolve()
      await vms.becomes('running')
      expect(world.host.acquired).toHaveLength(1)
    })

    it('says why it could not be started, and starts when that is over', async () => {
      const trouble: { fault: MagsError | undefined } = { fault: new MagsError('sandbox_failed', 'no room for its memory') }
      await using world = new MicrovmWorld(newDatabase(), {
        beforeAcquire: () => {
          if (trouble.fault) throw trouble.fault
        },
      })
      const vms = await world.start()
      await vms.create()
      await vms.becomes('error')
      expect(await vms.get()).toMatchObject({ error: 'no room for its memory' })
      expect(await vms.act('start')).toEqual({ success: false, status: 'error', error: 'no room for its memory' })
      trouble.fault = undefined
      expect(await vms.act('start')).toEqual({ success: true, status: 'running' })
      expect(await vms.get()).toMatchObject({ status: 'running', error: null })
    })

    it('is in error when its machine is lost, and starts from its disk again', async () => {
      await using world = newWorld()
      const vms = await world.start()
      await vms.running()
      world.sandbox().files.put('/a', '1')
      await world.sandbox().destroy()
      await vms.becomes('error')
      expect((await vms.get()).error).toMatch(/sandbox was lost/)
      expect(await vms.act('start')).toEqual({ success: true, status: 'running' })
      expect(world.sandbox().files.tree.get('/a')?.content.toString()).toBe('1')
      await world.sandbox().destroy()
      await vms.becomes('error')
      expect(await vms.act('stop')).toEqual({ success: true, status: 'stopped' })
    })

    it('stops when it is powered off from inside, and starts again when it is rebooted', async () => {
      await using world = newWorld()
      const vms = await world.start()
      const { request_id: first } = await vms.running()
      world.sandbox().files.put('/a', '1')
      world.sandbox().end({ ...exited, halted: 'rebooted' })
      await expect.poll(async () => (await vms.get()).request_id, poll).not.toBe(first)
      await vms.becomes('running')
      expect((await vms.mags.rows(first ?? '', '?source=system')).logs.map(({ message }) => message)).toContain('rebooted from inside')
      expect(world.sandbox().files.tree.get('/a')?.content.toString()).toBe('1')
      world.sandbox().files.put('/b', '2')
      world.sandbox().end({ ...exited, halted: 'powered-off' })
      await vms.becomes('stopped')
      expect(await vms.rows()).toContain('powered off from inside')
      expect(await vms.act('start')).toMatchObject({ status: 'running' })
      expect(world.sandbox().files.tree.get('/b')?.content.toString()).toBe('2')
    })

    it('waits longer and longer for its next start when it does nothing but reboot, unless somebody asks for it', async () => {
      await using world = newWorld()
      const vms = await world.start()
      const reboot = async () => {
        const { request_id } = await vms.get()
        world.sandbox().end({ ...exited, halted: 'rebooted' })
        return request_id
      }
      const next = async (before: string | null) => {
        await expect.poll(async () => (await vms.get()).request_id, poll).not.toBe(before)
        await vms.becomes('running')
      }
      await vms.running()
      for (let count = 0; count < 2; count++) await next(await reboot())
      for (const waitMs of [7000, 14_000]) {
        const before = await reboot()
        await expect.poll(() => world.timers.pending.includes(waitMs), poll).toBe(true)
        expect((await vms.get()).request_id).toBe(before)
        world.timers.pass(waitMs)
        await world.endWait(waitMs)
        await next(before)
      }
      const before = await reboot()
      await expect.poll(() => world.timers.pending.includes(28_000), poll).toBe(true)
      expect((await vms.mags.rows(before ?? '', '?source=system')).logs.map(({ message }) => message)).toContain(
        'rebooted from inside; it does so again and again, so its next start waits 28 s',
      )
      expect(await vms.act('start')).toMatchObject({ status: 'running' })
      // One that came to rest meanwhile is started again at once.
      world.timers.pass(120_000)
      await next(await reboot())
    })

    it('is in error when its init ends without that', async () => {
      await using world = newWorld()
      const vms = await world.start()
      await vms.running()
      world.sandbox().end({ kind: 'exited', exitCode: 7 })
      await vms.becomes('error')
      expect(await vms.get()).toMatchObject({ error: 'its init ended with exit code 7' })
      await expect.poll(() => world.host.sandboxes.size, poll).toBe(0)
      expect(await vms.act('start')).toMatchObject({ status: 'running' })
    })

    it('starts once when asked twice, and stops when asked meanwhile', async () => {
      const gate = Promise.withResolvers<void>()
      const state = { gated: false }
      await using world = new MicrovmWorld(newDatabase(), { beforeAcquire: () => (state.gated ? gate.promise : undefined) })
      const vms = await world.start()
      await vms.running()
      await vms.act('stop')
      state.gated = true
      const starts = [vms.act('start'), vms.act('start'), vms.act('start')]
      await expect.poll(() => world.host.acquired.length, poll).toBe(2)
      const stop = vms.act('stop')
      expect(await stop).toEqual({ success: true, status: 'stopped' })
      expect((await Promise.all(starts)).map(({ status }) => status)).toEqual(['stopped', 'stopped', 'stopped'])
      gate.resolve()
      expect(world.host.acquired).toHaveLength(2)
    })

    it('starts after a stop that was under way', async () => {
      await using world = newWorld()
      const vms = await world.start()
      const { request_id } = await vms.running()
      const gate = Promise.withResolvers<void>()
      world.host.workspaces.beforeSave = () => gate.promise
      const stop = vms.act('stop')
      await vms.becomes('stopping')
      const start = vms.act('start')
      await vms.becomes('creating')
      gate.resolve()
      expect(await start).toEqual({ success: true, status: 'running' })
      expect(await stop).toMatchObject({ success: true })
      expect((await vms.get()).request_id).not.toBe(request_id)
    })

    it('restarts one that runs, and starts one that is stopped', async () => {
      await using world = newWorld()
      const vms = await world.start()
      const { request_id: first } = await vms.running()
      world.sandbox().files.put('/a', '1')
      expect(await vms.act('restart')).toEqual({ success: true, status: 'running' })
      expect(world.sandbox().files.tree.get('/a')?.content.toString()).toBe('1')
      const { request_id: second } = await vms.get()
      expect(second).not.toBe(first)
      await vms.act('stop')
      expect(await vms.act('restart')).toEqual({ success: true, status: 'running' })
      expect(world.host.acquired).toHaveLength(3)
    })

    it('stops with its job, and is not put to sleep', async () => {
      await using world = newWorld()
      const vms = await world.start()
      const { request_id, workspace_id } = await vms.running()
      expect(await vms.mags.call('POST', `/mags-jobs/${request_id}/sleep`, {})).toMatchObject({ status: 400 })
      expect(await vms.mags.call('PATCH', `/mags-jobs/${request_id}`, { no_sleep: false })).toMatchObject({ status: 400 })
      await vms.mags.call('POST', `/mags-jobs/${workspace_id}/stop`)
      await vms.becomes('stopped')
      expect(await vms.get()).toMatchObject({ error: null })
    })

    it('says who has its disk when it cannot start', async () => {
      await using world = newWorld()
      const vms = await world.start()
      const { workspace_id } = await vms.running()
      await vms.act('stop')
      const other = await vms.mags.submit({ script: 'wait', workspace_id })
      const answer = await vms.act('start')
      expect(answer).toMatchObject({ success: false, status: 'error', error: expect.stringContaining(`is already in use by job ${other}`) })
      expect(await vms.delete()).toMatchObject({ body: { code: 'workspace_in_use' } })
      expect(await vms.get()).toMatchObject({ status: 'error' })
      await vms.mags.call('POST', `/mags-jobs/${other}/stop`)
      expect(await vms.act('start')).toMatchObject({ status: 'running' })
    })

    describe('a restart of the server', () => {
      it('adopts one that runs, and leaves one that is stopped or in error', async () => {
        await using world = newWorld()
        const first = await world.start()
        const before = await first.running({ name: 'runs' })
        await first.running({ name: 'stops' })
        await first.act('stop', 'stops')
        await first.running({ name: 'fails' })
        for (const sandbox of world.host.sandboxes.values())
          if (sandbox.spec.workspace?.storageId.slice(0, 12) !== before.url?.slice(7, 19)) await sandbox.destroy()
        await first.becomes('error', 'fails')
        await first.mags.server.close()
        const second = await world.start()
        await second.becomes('running', 'runs')
        expect(await second.get('runs')).toEqual(before)
        expect(await second.get('stops')).toMatchObject({ status: 'stopped' })
        expect(await second.get('fails')).toMatchObject({ status: 'error', error: expect.stringMatching(/lost/) })
        expect(world.host.acquired).toHaveLength(3)
        // The next server hears of what happens in it.
        world.sandbox().end({ ...exited, halted: 'powered-off' })
        await second.becomes('stopped', 'runs')
      })

      it('starts again what lost its machine with the former server', async () => {
        await using world = newWorld()
        const first = await world.start()
        const { request_id } = await first.running()
        world.sandbox().files.put('/a', '1')
        await first.mags.server.close()
        await world.sandbox().destroy()
        const second = await world.start()
        await second.becomes('running')
        expect((await second.get()).request_id).not.toBe(request_id)
        expect(world.sandbox().files.tree.get('/a')?.content.toString()).toBe('1')
      })

      it('starts again what rebooted or powered off while no server saw how', async () => {
        await using world = newWorld()
        const first = await world.start()
        const { request_id } = await first.running()
        world.host.workspaces.beforeSave = world.here
        world.sandbox().end({ ...exited, halted: 'rebooted' })
        const second = await world.next()
        await second.becomes('running')
        expect((await second.get()).request_id).not.toBe(request_id)
        expect(world.host.sandboxes.size).toBe(1)
      })

      it('goes on with a start', async () => {
        await using world = newWorld()
        const first = await world.start()
        world.host.beforeRun = world.here
        await first.create()
        const second = await world.next()
        await second.becomes('running')
        expect(await second.get()).toMatchObject({ error: null })
      })

      it('goes on with a stop', async () => {
        await using world = newWorld()
        const first = await world.start()
        await first.running()
        world.sandbox().files.put('/a', '1')
        world.host.workspaces.beforeSave = world.here
        void first.act('stop').catch(() => undefined)
        const second = await world.next()
        await second.becomes('stopped')
        await second.act('start')
        expect(world.sandbox().files.tree.get('/a')?.content.toString()).toBe('1')
      })

      it('goes on with a restart', async () => {
        await using world = newWorld()
        const first = await world.start()
        const { request_id } = await first.running()
        world.host.workspaces.beforeSave = world.here
        void first.act('restart').catch(() => undefined)
        const second = await world.next()
        await second.becomes('running')
        await expect.poll(async () => (await second.get()).request_id, poll).not.toBe(request_id)
        await second.becomes('running')
      })

      it('goes on with a deletion', async () => {
        await using world = newWorld()
        const first = await world.start()
        await first.running()
        const sandbox = world.sandbox()
        const destroy = sandbox.destroy.bind(sandbox)
        sandbox.destroy = world.here
        void first.delete().catch(() => undefined)
        await world.hangs
        expect((await first.mags.call('GET', '/microvms/vm')).status).toBe(404)
        sandbox.destroy = destroy
        const second = await world.next()
        await expect.poll(async () => (await second.create()).status, poll).toBe(201)
        expect(world.host.workspaces.removed).toHaveLength(1)
      })
    })
  })
})
