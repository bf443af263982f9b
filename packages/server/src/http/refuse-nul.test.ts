import { describe, expect, it } from 'vitest'
import { databaseKinds, lacksDatabase, useTestDatabases } from '../../../../tests/kit/test-databases.ts'
import { startTestServer } from '../testing/test-server.ts'

describe.each(databaseKinds)('an address with a NUL character on %s', (kind) => {
  describe.skipIf(lacksDatabase(kind))('server', () => {
    const newDatabase = useTestDatabases(kind)

    it('names nothing', async () => {
      await using mags = await startTestServer({ deps: { database: newDatabase() } })
      const { paths } = (await mags.server.app.inject('/openapi.json')).json<{ paths: Record<string, Record<string, object>> }>()
      const named = Object.entries(paths).filter(([path]) => path.startsWith('/api/v1/') && path.includes('{'))
      expect(named.length).toBeGreaterThan(20)
      for (const [path, routes] of named) {
        for (const method of Object.keys(routes)) {
          const url = path.slice('/api/v1'.length).replace(/\{\w+\}/g, 'a%00b')
          const answer = await mags.call(method.toUpperCase() as 'GET', url, ['post', 'put', 'patch'].includes(method) ? {} : undefined)
          expect(answer, `${method} ${url}`).toMatchObject({ status: 404, body: { code: 'not_found' } })
        }
      }
      for (const url of ['/jobs?template_id=%00', '/mags-jobs?workspace_id=x%00'])
        expect(await mags.call('GET', url)).toMatchObject({
          status: 400,
          body: { error: expect.stringMatching(/^[a-z_]+: must not contain a NUL character$/) },
        })
    })
  })
})
