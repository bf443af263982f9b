import type { JobRunAnswer, TemplateAnswer } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { databaseKinds, lacksDatabase, useTestDatabases } from '../../../../tests/kit/test-databases.ts'
import { openDatabase } from '../state/database.ts'
import { JobApiClient } from '../testing/job-api-client.ts'
import { startTestServer } from '../testing/test-server.ts'

const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
const uuid = expect.stringMatching(/^[0-9a-f-]{36}$/)

describe.each(databaseKinds)('job templates on %s', (kind) => {
  describe.skipIf(lacksDatabase(kind))('server', () => {
    const newDatabase = useTestDatabases(kind)
    const start = async () => {
      const mags = await startTestServer({ deps: { database: newDatabase() } })
      const add = async (body: Record<string, unknown> = {}): Promise<TemplateAnswer> => {
        const answer = await mags.call('POST', '/job-templates', { name: 'template', script: 'echo hi', ...body })
        if (answer.status !== 201) throw new Error(`${answer.status} ${JSON.stringify(answer.body)}`)
        return answer.body as unknown as TemplateAnswer
      }
      const run = async (id: string, body?: Record<string, unknown>): Promise<JobRunAnswer> => {
        const answer = await mags.call('POST', `/job-templates/${id}/run`, body)
        if (answer.status !== 202) throw new Error(`${answer.status} ${JSON.stringify(answer.body)}`)
        return answer.body as unknown as JobRunAnswer
      }
      return Object.assign(mags, { jobs: new JobApiClient(mags), add, run })
    }

    it('are made, listed and changed, each change a revision', async () => {
      await using mags = await start()
      const made = await mags.add({ description: 'd', script_type: 'inline', vcpus: 1, memory_mb: 256, environment: { A: 'a' }, comment: 'first', icon: 'x' })
      const { warnings, ...template } = made
      expect(warnings).toEqual(['unknown member "icon" was ignored'])
      const { id } = made
      expect(template).toEqual({
        ...{ id: uuid, name: 'template', description: 'd', script_type: 'inline', default_vcpus: 1, default_memory_mb: 256 },
        ...{ created_at: time, updated_at: time, user_id: uuid },
        latest_revision: {
          ...{ id: uuid, template_id: id, revision: 1, script: 'echo hi', environment: { A: 'a' }, comment: 'first' },
          ...{ created_at: time, created_by: made.user_id },
        },
      })
      expect((await mags.call('GET', `/job-templates/${id}`)).body).toEqual(template)
      const changed = await mags.call('PUT', `/job-templates/${id}`, { script: 'echo ho', comment: 'second' })
      expect(changed).toMatchObject({
        status: 200,
        body: {
          id,
          name: 'template',
          description: 'd',
          default_vcpus: 1,
          latest_revision: { revision: 2, script: 'echo ho', environment: { A: 'a' }, comment: 'second' },
        },
      })
      expect((await mags.call('PUT', `/job-templates/${id}`, { name: 'renamed', vcpus: null, description: null, environment: null })).body).toMatchObject({
        ...{ name: 'renamed', default_vcpus: 2, default_memory_mb: 256, description: null },
        latest_revision: { revision: 3, script: 'echo ho', environment: {}, comment: null },
      })
      expect((await mags.call('GET', '/job-templates/renamed/revisions?page_size=2')).body).toMatchObject({
        ...{ total: 3, page: 1, page_size: 2 },
        revisions: [
          { revision: 3, comment: null },
          { revision: 2, script: 'echo ho', comment: 'second' },
        ],
      })
      await mags.add({ name: 'newer' })
      expect((await mags.call('GET', '/job-templates')).body).toMatchObject({
        total: 2,
        page: 1,
        page_size: 20,
        templates: [{ name: 'newer' }, { name: 'renamed' }],
      })
    })

    it('run as jobs of their own, with the environment overridden', async () => {
      await using mags = await start()
      const { id } = await mags.add({ script: 'env A\nenv B', environment: { A: 'a', B: 'b' }, vcpus: 3, memory_mb: 256 })
      const run = await mags.run(id, { environment: { B: 'c' } })
      expect(run).toMatchObject({ id: run.job_id, job_name: 'template', status: 'not_started', exit_code: null })
      expect(await mags.jobs.ended(run.id)).toMatchObject({ status: 'completed', logs: ['a', 'c'], vcpus: 3, memory_mb: 256 })
      expect(await mags.jobs.get(run.job_id)).toMatchObject({ name: 'template', template_id: id, template_revision: 1, environment: { A: 'a', B: 'c' } })
      await mags.call('PUT', `/job-templates/${id}`, { script: 'echo new' })
      const second = await mags.run(id)
      expect(await mags.jobs.ended(second.id)).toMatchObject({ logs: ['new'] })
      // A job keeps to the revision it was made of.
      const again = await mags.jobs.run(run.job_id)
      expect(await mags.jobs.ended(again.id)).toMatchObject({ logs: ['a', 'c'] })
      await mags.jobs.create({ name: 'without' })
      expect((await mags.call('GET', `/jobs?template_id=${id}`)).body).toMatchObject({
        total: 2,
        jobs: [
          { id: second.job_id, template_revision: 2 },
          { id: run.job_id, template_revision: 1 },
        ],
      })
      const keyed = await Promise.all([1, 2].map(() => mags.call('POST', `/job-templates/${id}/run`, undefined, { 'idempotency-key': 'k' })))
      expect(new Set(keyed.map(({ body }) => body.id)).size).toBe(1)
      expect((await mags.call('GET', `/jobs?template_id=${id}`)).body).toMatchObject({ total: 3 })
    })

    it('are refused as jobs are, and not found once deleted', async () => {
      await using mags = await start()
      const { id } = await mags.add()
      for (const [body, status, error] of [
        [{ vcpus: 0 }, 422, 'vcpus: must be a whole number from 1 to 4 on this server'],
        [{ memory_mb: 64 }, 422, 'memory_mb: must be a whole number from 128 to 4,096 on this server'],
        [{ script: '' }, 422, 'script: must not be blank'],
        [{ name: '\t' }, 422, 'name: must not be blank'],
        [{ script_type: 'url' }, 422, 'script_type: must be one of inline'],
        [{ comment: 1 }, 400, 'comment: must be a string'],
      ] as const) {
        expect(await mags.call('POST', '/job-templates', { name: 't', script: 'x', ...body }), error).toMatchObject({ status, body: { error } })
        expect(await mags.call('PUT', `/job-templates/${id}`, body), error).toMatchObject({ status, body: { error } })
      }
      expect(await mags.call('POST', '/job-templates', { name: 't' })).toMatchObject({ status: 400, body: { error: 'script: is required' } })
      expect((await mags.call('GET', `/job-templates/${id}`)).body).toMatchObject({ latest_revision: { revision: 1 } })
      const { job_id: jobId } = await mags.run(id)
      await mags.jobs.ended(jobId)
      expect(await mags.call('DELETE', `/job-templates/${id}`)).toMatchObject({ status: 200, body: { success: true } })
      for (const [method, path] of [
        ['GET', ''],
        ['PUT', ''],
        ['DELETE', ''],
        ['POST', '/run'],
        ['GET', '/revisions'],
      ] as const)
        expect(await mags.call(method, `/job-templates/${id}${path}`, method === 'PUT' ? {} : undefined)).toMatchObject({
          status: 404,
          body: { code: 'not_found', error: `no job template "${id}"; 'mags template list' shows those there are` },
        })
      // What was made of it stays.
      expect((await mags.call('GET', `/jobs?template_id=${id}`)).body).toMatchObject({ total: 1, jobs: [{ id: jobId, template_id: id, template_revision: 1 }] })
      const again = await mags.jobs.run(jobId)
      expect(await mags.jobs.ended(again.id)).toMatchObject({ status: 'completed', logs: ['hi'] })
    })

    it('are numbered without a gap when many change one at once', async () => {
      await using mags = await start()
      const { id } = await mags.add()
      await Promise.all(Array.from({ length: 10 }, (_, index) => mags.call('PUT', `/job-templates/${id}`, { comment: `c${index}` })))
      const { body } = await mags.call('GET', `/job-templates/${id}/revisions`)
      expect((body as { revisions: { revision: number }[] }).revisions.map(({ revision }) => revision)).toEqual([11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1])
    })

    it('are listed by an index, however many there are', async () => {
      await using mags = await start()
      const { id } = await mags.add()
      const db = await openDatabase(mags.deps.database)
      const { seq: _seq, ...template } = await db.selectFrom('job_templates').selectAll().executeTakeFirstOrThrow()
      const revision = await db.selectFrom('job_template_revisions').selectAll().executeTakeFirstOrThrow()
      for (let from = 0; from < 10_000; from += 500) {
        const numbers = Array.from({ length: 500 }, (_, index) => from + index)
        await db
          .insertInto('job_templates')
          .values(numbers.map((number) => ({ ...template, id: `t${number}`, name: `template ${number}` })))
          .execute()
        await db
          .insertInto('job_template_revisions')
          .values(numbers.map((number) => ({ ...revision, id: `r${number}`, template_id: `t${number}` })))
          .execute()
      }
      await db.destroy()
      expect((await mags.call('GET', '/job-templates?page=101&page_size=99')).body).toMatchObject({
        total: 10_001,
        templates: expect.arrayContaining([expect.objectContaining({ id: 't99' }), expect.objectContaining({ id: 't1' })]),
      })
      expect((await mags.call('GET', '/job-templates?page=10001&page_size=1')).body).toMatchObject({ templates: [{ id }] })
    })
  })
})
