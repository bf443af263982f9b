import { describe, expect, it } from 'vitest'
import { databaseKinds, lacksDatabase, useTestDatabases } from '../../../../tests/kit/test-databases.ts'
import { startTestServer } from '../testing/test-server.ts'

interface Listed {
  readonly id: string
  readonly script?: string
  readonly latest_revision?: { readonly script: string }
}

describe.each(databaseKinds)('lists that are too long to be held in memory, on %s', (kind) => {
  describe.skipIf(lacksDatabase(kind))('server', () => {
    const newDatabase = useTestDatabases(kind)

    it('are the same as short ones, each page of them', async () => {
      await using mags = await startTestServer({ deps: { database: newDatabase() }, held: true })
      const scripts = Array.from({ length: 4 }, (_, number) => `#${number}${'é'.repeat(400_000)}`)
      let template = ''
      for (const script of scripts) {
        expect((await mags.call('POST', '/jobs', { name: 'a', script })).status).toBe(202)
        template = String((await mags.call('POST', '/job-templates', { name: 'a', script })).body.id)
        for (const revision of scripts) await mags.call('PUT', `/job-templates/${template}`, { script: revision })
      }
      for (const [path, member, one] of [
        ['/jobs', 'jobs', '/jobs'],
        ['/job-templates', 'templates', '/job-templates'],
        [`/job-templates/${template}/revisions`, 'revisions', undefined],
      ] as const) {
        const long = await mags.call('GET', path)
        expect(long.status).toBe(200)
        expect(long.headers['content-type']).toBe('application/json; charset=utf-8')
        // Those that come whole have their length in the header.
        expect(long.headers['content-length']).toBeUndefined()
        const short = await mags.call('GET', `${path}?page_size=1&page=2`)
        expect(short.headers['content-length']).toBeDefined()
        const items = long.body[member] as Listed[]
        expect(long.body).toMatchObject({ total: items.length, page: 1, page_size: 20 })
        expect(short.body).toEqual({ [member]: [items[1]], total: items.length, page: 2, page_size: 1 })
        if (one !== undefined) for (const item of items) expect((await mags.call('GET', `${one}/${item.id}`)).body).toEqual(item)
      }
    })
  })
})
