import { describe, expect, it } from 'vitest'
import { databaseKinds, lacksDatabase, useTestDatabases } from '../../../../tests/kit/test-databases.ts'
import { CronClient, CronWorld } from '../testing/cron-world.ts'
import type { TestServer } from '../testing/test-server.ts'

const until = <T>(probe: () => T) => expect.poll(probe, { timeout: 10_000, interval: 5 })
const crons = (mags: TestServer) => new CronClient(mags)
const hourMs = 3_600_000

describe.each(databaseKinds)('cron over time on %s', (kind) => {
  describe.skipIf(lacksDatabase(kind))('server', () => {
    const newDatabase = useTestDatabases(kind)
    const newWorld = () => new CronWorld(newDatabase())

    it('catches up one missed run after a restart, the newest', async () => {
      await using world = newWorld()
      const first = await world.start()
      await crons(first).add()
      await crons(first).add({ name: 'off', enabled: false })
      await crons(first).add({ name: 'changed' })
      await first.server.close()
      world.now += 3 * hourMs
      const second = await world.start({ held: true })
      await second.call('PATCH', '/mags-cron/changed', { schedule: '*/10 * * * *' })
      await second.call('PATCH', '/mags-cron/off', { enabled: true })
      await second.server.start()
      await until(() => crons(second).brief()).toEqual(['03:00 catch_up completed'])
      expect(await crons(second).get()).toMatchObject({ next_run_at: '2026-03-01T03:05:00.000Z' })
      await second.server.close()
      const third = await world.start()
      world.now = Date.parse('2026-03-01T03:10:00Z')
      await crons(third).look()
      await until(() => crons(third).brief()).toEqual(['03:10 catch_up completed', '03:00 catch_up completed'])
      await until(() => crons(third).brief('changed')).toEqual(['03:10 schedule completed'])
      await until(() => crons(third).brief('off')).toEqual(['03:10 catch_up completed'])
    })

    it('submits after a crash what was not, and nothing twice', async () => {
      await using world = newWorld()
      const first = await world.start()
      const { cron_id } = await crons(first).add({ schedule: '@yearly' })
      await first.server.close()
      const sql = await world.sql()
      const row = { cron_id, cause: 'schedule' as const, reason: null, created_at: '2026-03-01T00:00:00.000Z' }
      await sql
        .insertInto('cron_runs')
        .values([
          { ...row, run_id: 'claimed', status: 'starting', scheduled_for: '2026-01-01T00:00:00.000Z', request_id: null },
          { ...row, run_id: 'done', status: 'submitted', scheduled_for: '2025-01-01T00:00:00.000Z', request_id: 'gone' },
        ])
        .execute()
      world.now += 48 * hourMs
      const servers = await Promise.all(kind === 'postgres' ? [world.start(), world.start()] : [world.start()])
      const [second] = servers
      if (!second) throw new Error('no server')
      await until(async () => (await crons(second).runs()).find(({ run_id }) => run_id === 'claimed')).toMatchObject({ status: 'completed' })
      for (const server of servers) await crons(server).look()
      expect((await second.call('GET', '/mags-jobs')).body).toMatchObject({ total: 1 })
    })

    it.skipIf(kind === 'sqlite')('runs once however many servers there are', async () => {
      await using world = newWorld()
      const servers = [await world.start(), await world.start(), await world.start()]
      const [one] = servers
      if (!one) throw new Error('no server')
      for (const name of ['a', 'b', 'c']) await crons(one).add({ name, schedule: '* * * * *', overlap: 'allow' })
      for (let minute = 1; minute <= 5; minute++) {
        world.now = Date.parse(`2026-03-01T00:0${minute}:00.000Z`)
        await Promise.all(servers.map((server) => crons(server).look('a')))
        for (const name of ['a', 'b', 'c'])
          await until(async () => (await crons(one).runs(name)).filter(({ status }) => status === 'completed')).toHaveLength(minute)
      }
      expect((await one.call('GET', '/mags-jobs')).body).toMatchObject({ total: 15 })
      // Overlap is judged once, too.
      await crons(one).add({ name: 'skip', script: 'wait', enabled: false })
      await Promise.all(servers.flatMap((server) => [crons(server).run('skip'), crons(server).run('skip')]))
      expect((await crons(one).runs('skip')).filter(({ status }) => status !== 'skipped')).toHaveLength(1)
      await until(() => world.host.sandboxes.size).toBe(1)
      crons(one).finish()
    })

    it('follows a clock that is set forth and back, and runs no time twice', async () => {
      await using world = newWorld()
      const mags = await world.start()
      await crons(mags).add({ overlap: 'allow' })
      const start = world.now
      const lookAt = async (ms: number, expected: string[]) => {
        world.now = ms
        await crons(mags).look()
        await until(() => crons(mags).brief()).toEqual(expected)
      }
      const one = ['00:05 schedule completed']
      await lookAt(start + 5 * 60_000, one)
      const two = ['05:00 catch_up completed', ...one]
      await lookAt(start + 5 * hourMs, two)
      expect(await crons(mags).get()).toMatchObject({ next_run_at: '2026-03-01T05:05:00.000Z' })
      await lookAt(start, two)
      await until(async () => (await crons(mags).get()).next_run_at).toBe('2026-03-01T00:05:00.000Z')
      await lookAt(start + 5 * 60_000, two)
      await until(async () => (await crons(mags).get()).next_run_at).toBe('2026-03-01T00:10:00.000Z')
      const three = ['00:10 schedule completed', ...two]
      await lookAt(start + 10 * 60_000, three)
      // Set right while the server was down.
      world.now = Date.parse('2031-01-01T00:00:00Z')
      await crons(mags).look()
      await until(async () => (await crons(mags).get()).next_run_at).toBe('2031-01-01T00:05:00.000Z')
      await mags.server.close()
      world.now = start + 11 * 60_000
      const again = await world.start()
      await until(async () => (await crons(again).get()).next_run_at).toBe('2026-03-01T00:15:00.000Z')
    })

    it('is not stopped by one that cannot be understood', async () => {
      await using world = newWorld()
      const mags = await world.start()
      await crons(mags).add({ name: 'bad' })
      await crons(mags).add({ name: 'worse' })
      await crons(mags).add()
      const sql = await world.sql()
      await sql.updateTable('crons').set({ schedule: 'every day' }).where('name', '=', 'bad').execute()
      await sql.updateTable('crons').set({ timezone: 'Europe/Nowhere', next_run_at: 'never' }).where('name', '=', 'worse').execute()
      world.now += 5 * 60_000
      await crons(mags).look()
      await until(() => crons(mags).brief()).toEqual(['00:05 schedule completed'])
      expect(await crons(mags).get('bad')).toMatchObject({ next_run_at: null, error: expect.stringContaining('schedule: must be five fields'), last_run: null })
      await mags.server.close()
      const second = await world.start()
      await until(async () => (await crons(second).get('worse')).error).toContain('timezone: "Europe/Nowhere" does not exist')
      expect((await second.call('PATCH', '/mags-cron/bad', { schedule: '@hourly' })).body).toMatchObject({
        error: null,
        next_run_at: '2026-03-01T01:00:00.000Z',
      })
    })

    it('finds the due ones among many', async () => {
      await using world = newWorld()
      const first = await world.start({ held: true })
      await crons(first).add()
      const sql = await world.sql()
      const row = await sql.selectFrom('crons').selectAll().executeTakeFirstOrThrow()
      const { seq: _seq, ...columns } = row
      const rows = Array.from({ length: 2000 }, (_, index) => ({
        ...columns,
        cron_id: `cron-${index}`,
        name: `cron-${index}`,
        schedule: index % 20 === 0 ? '5 0 * * *' : '0 12 * * *',
        next_run_at: index % 20 === 0 ? '2026-03-01T00:05:00.000Z' : '2026-03-01T12:00:00.000Z',
      }))
      for (let from = 0; from < rows.length; from += 500)
        await sql
          .insertInto('crons')
          .values(rows.slice(from, from + 500))
          .execute()
      world.now += 5 * 60_000
      await first.server.start()
      await until(async () => (await first.call('GET', '/mags-jobs?status=completed')).body.total).toBe(101)
      expect((await sql.selectFrom('cron_runs').select('status').distinct().execute()).map(({ status }) => status)).toEqual(['submitted'])
    })
  })
})
