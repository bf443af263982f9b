import { describe, expect, it } from 'vitest'
import { databaseKinds, lacksDatabase, useTestDatabases } from '../../../../tests/kit/test-databases.ts'
import { type DatabaseConfig, openDatabase } from '../state/database.ts'
import { GroupCommit } from '../state/group-commit.ts'
import { startTestServer, type TestServer } from '../testing/test-server.ts'
import { mostAliases } from './change-alias.ts'
import { KnownAliases } from './known-aliases.ts'
import { AliasStore } from './store.ts'

const appsUrl = 'https://apps.example.org:8443'

describe.each(databaseKinds)('URL aliases on %s', (kind) => {
  describe.skipIf(lacksDatabase(kind))('API', () => {
    const newDatabase = useTestDatabases(kind)
    /** A server with the workspaces `web` and `other`. */
    async function start(): Promise<TestServer & { readonly database: DatabaseConfig }> {
      const database = newDatabase()
      const mags = await startTestServer({ deps: { database, appsUrl, publicUrl: 'https://api.example.org' } })
      for (const workspace of ['web', 'other']) await mags.ended(await mags.submit({ script: 'echo', workspace_id: workspace }))
      return { ...mags, database }
    }
    const add = (mags: TestServer, body: Record<string, unknown>, headers: Record<string, string> = {}) =>
      mags.call('POST', '/mags-url-aliases', { workspace_id: 'web', ...body }, headers)

    it('are made, listed newest first, changed and removed', async () => {
      await using mags = await start()
      const blog = await add(mags, { subdomain: 'blog' })
      expect(blog).toMatchObject({ status: 201 })
      expect(blog.body).toEqual({
        subdomain: 'blog',
        workspace_id: 'web',
        domain: null,
        url: 'https://blog.apps.example.org:8443',
        created_at: expect.stringMatching(/^20.*Z$/),
        updated_at: expect.any(String),
      })
      expect((await add(mags, { subdomain: 'shop', domain: 'Shop.Example.COM.' })).body).toMatchObject({ domain: 'shop.example.com' })
      expect((await mags.call('GET', '/mags-url-aliases?page_size=1')).body).toMatchObject({
        total: 2,
        page: 1,
        page_size: 1,
        aliases: [{ subdomain: 'shop' }],
      })
      expect((await mags.call('GET', '/mags-url-aliases/blog')).body).toEqual(blog.body)
      expect(await mags.call('PATCH', '/mags-url-aliases/blog', { workspace_id: 'other', domain: 'blog.example.com' })).toMatchObject({
        status: 200,
        body: { workspace_id: 'other', domain: 'blog.example.com' },
      })
      expect((await mags.call('PATCH', '/mags-url-aliases/blog', { domain: null })).body).toMatchObject({ workspace_id: 'other', domain: null })
      expect(await mags.call('DELETE', '/mags-url-aliases/blog')).toMatchObject({ status: 200, body: { success: true } })
      for (const method of ['GET', 'DELETE'] as const) expect(await mags.call(method, '/mags-url-aliases/blog')).toMatchObject({ status: 404 })
      expect(await mags.call('PATCH', '/mags-url-aliases/blog', {})).toMatchObject({ status: 404 })
      expect(await add(mags, { subdomain: 'blog' })).toMatchObject({ status: 201 })
    })

    it('refuse what is taken, without a word about whose it is', async () => {
      await using mags = await start()
      const other = await mags.server.tokens.create('other')
      await using db = { database: await openDatabase(mags.database), [Symbol.asyncDispose]: () => db.database.destroy() }
      await db.database.updateTable('tokens').set({ account_id: 'someone' }).where('name', '=', 'other').execute()
      await add(mags, { subdomain: 'blog', domain: 'blog.example.com' })
      const theirs = { authorization: `Bearer ${other}` }
      for (const headers of [{}, theirs] as Record<string, string>[]) {
        if (headers === theirs) await mags.call('POST', '/mags-jobs', { script: 'echo', workspace_id: 'web' }, headers)
        expect(await add(mags, { subdomain: 'blog' }, headers)).toMatchObject({
          status: 409,
          body: { code: 'already_exists', error: 'subdomain: "blog" is taken already; choose another' },
        })
        expect(await add(mags, { subdomain: 'blog2', domain: 'BLOG.example.com' }, headers)).toMatchObject({
          status: 409,
          body: { error: 'domain: "blog.example.com" is taken already; choose another' },
        })
      }
      await add(mags, { subdomain: 'shop' })
      expect(await mags.call('PATCH', '/mags-url-aliases/shop', { domain: 'blog.example.com' })).toMatchObject({ status: 409 })
      expect(await mags.call('PATCH', '/mags-url-aliases/blog', { domain: 'blog.example.com' })).toMatchObject({ status: 200 })
      for (const [method, body] of [['GET'], ['DELETE'], ['PATCH', { domain: null }]] as const)
        expect(await mags.call(method, '/mags-url-aliases/blog', body, theirs)).toMatchObject({ status: 404 })
      expect((await mags.call('GET', '/mags-url-aliases', undefined, theirs)).body).toMatchObject({ total: 0 })
    })

    it('go to one of those who ask at once, and once for one Idempotency-Key', async () => {
      await using mags = await start()
      const answers = await Promise.all(Array.from({ length: 10 }, (_, index) => add(mags, { subdomain: 'blog', domain: `b${index}.example.com` })))
      expect(answers.map(({ status }) => status).sort()).toEqual([201, ...Array.from({ length: 9 }, () => 409)])
      const key = { 'idempotency-key': 'k' }
      const same = await Promise.all(Array.from({ length: 5 }, () => add(mags, { subdomain: 'shop' }, key)))
      expect(new Set(same.map(({ status, body }) => `${status} ${body.created_at}`)).size).toBe(1)
      expect(await add(mags, { subdomain: 'shop2' }, key)).toMatchObject({ status: 409, body: { code: 'idempotency_conflict' } })
    })

    it('need the workspace when they are made, and outlive it', async () => {
      await using mags = await start()
      expect(await add(mags, { subdomain: 'blog', workspace_id: 'nope' })).toMatchObject({
        status: 404,
        body: { error: "no workspace 'nope'; 'mags workspace list' shows those there are" },
      })
      await add(mags, { subdomain: 'blog' })
      expect(await mags.call('PATCH', '/mags-url-aliases/blog', { workspace_id: 'nope' })).toMatchObject({ status: 404 })
      expect(await mags.call('DELETE', '/mags-workspaces/web')).toMatchObject({ status: 200 })
      expect((await mags.call('GET', '/mags-url-aliases/blog')).body).toMatchObject({ workspace_id: 'web' })
    })

    it('are bounded in number', async () => {
      await using mags = await start()
      const database = await openDatabase(mags.database)
      const row = { account_id: 'local', workspace_id: 'web', domain: null, created_at: '', updated_at: '' }
      const rows = Array.from({ length: mostAliases }, (_, index) => ({ ...row, subdomain: `a${index}` }))
      for (let from = 0; from < rows.length; from += 100)
        await database
          .insertInto('url_aliases')
          .values(rows.slice(from, from + 100))
          .execute()
      await database.destroy()
      expect(await add(mags, { subdomain: 'blog' })).toMatchObject({ status: 429, body: { error: 'an account may have 1,000 aliases; remove one first' } })
    })

    it('are found by label and by domain, from memory for a moment, also when another server changes them', async () => {
      await using mags = await start()
      const database = await openDatabase(mags.database)
      await using _closing = { [Symbol.asyncDispose]: () => database.destroy() }
      let now = 0
      const known = new KnownAliases(new AliasStore(database, new GroupCommit(database, kind)), () => now)
      const find = () => Promise.all([known.find('blog', 'blog.apps.example.org'), known.find(undefined, 'blog.example.com')])
      expect(await find()).toEqual([undefined, undefined])
      await add(mags, { subdomain: 'blog', domain: 'blog.example.com' })
      expect(await find()).toEqual([undefined, undefined])
      now += 2000
      const target = { accountId: 'local', workspaceId: 'web' }
      expect(await find()).toEqual([target, target])
      await mags.call('DELETE', '/mags-url-aliases/blog')
      expect(await find()).toEqual([target, target])
      known.drop()
      expect(await find()).toEqual([undefined, undefined])
    })
  })
})

describe('names', () => {
  it('of aliases are labels that are not ours', async () => {
    await using mags = await startTestServer({ deps: { appsUrl } })
    await mags.ended(await mags.submit({ script: 'echo', workspace_id: 'web' }))
    const label = 'must be 1 to 63 of a-z 0-9 - (lower case), and not begin or end with -'
    const cases: [unknown, string][] = [
      [undefined, 'is required'],
      [7, 'must be a string'],
      ...['', 'Blog', '-a', 'a-', 'a.b', 'a_b', '_dmarc', 'ü', 'a b', 'a\n', 'a\0', '😀', 'a'.repeat(64), '*'].map((name): [string, string] => [name, label]),
      ...['xn--bcher-kva', 'ab--c'].map((name): [string, string] => [
        name,
        'must not have -- as its third and fourth character; such names stand for others in Unicode',
      ]),
      ...['0123456789ab', 'deadbeef-123'].map((name): [string, string] => [name, 'looks like the URL of a job; choose another']),
      ...['www', 'api', 'ns1', 'autodiscover', 'localhost'].map((name): [string, string] => [name, `"${name}" is reserved; choose another`]),
    ]
    for (const [subdomain, words] of cases) {
      const answer = await mags.call('POST', '/mags-url-aliases', { subdomain, workspace_id: 'web' })
      expect(answer, JSON.stringify(subdomain)).toMatchObject({ status: 400, body: { code: 'bad_request', error: `subdomain: ${words}` } })
    }
    for (const subdomain of ['a', '0', 'a-b', 'a--b', 'deadbeef-12', 'deadbeef-1234', '0123456789abc', '0123456789ag', 'a'.repeat(63)])
      expect(await mags.call('POST', '/mags-url-aliases', { subdomain, workspace_id: 'web' }), subdomain).toMatchObject({ status: 201 })
    expect(await mags.call('POST', '/mags-url-aliases', { subdomain: 'b', workspace_id: 'web', port: 1 })).toMatchObject({ status: 400 })
  })

  it('of domains are host names that are not ours', async () => {
    await using mags = await startTestServer({ deps: { appsUrl, publicUrl: 'https://api.example.org' } })
    await mags.ended(await mags.submit({ script: 'echo', workspace_id: 'web' }))
    const cases: [unknown, RegExp][] = [
      ['example', /at least one dot/],
      ['', /must be a host name/],
      ['.', /must be a host name/],
      ['a..b', /must be a host name/],
      ['-a.example.com', /must be a host name/],
      ['a_b.example.com', /must be a host name/],
      ['*.example.com', /must be a host name/],
      [`${'a'.repeat(64)}.com`, /must be a host name/],
      [`${'abc.'.repeat(70)}com`, /must be a host name/],
      ['bücher.example.com', /must be written in ASCII/],
      ['xn--zzzzzzzz--.example.com', /must be a host name/],
      ['xn--a.example.com', /stands for no name/],
      ['https://example.com', /without scheme/],
      ['example.com:80', /without scheme/],
      ['example.com/x', /without scheme/],
      ['192.0.2.1', /not an address/],
      ['192.0.2.0x1', /not an address/],
      ['[::1]', /without scheme/],
      ['a.localhost', /localhost/],
      ['x.apps.example.org', /names below apps.example.org are given by subdomain/],
      ['API.example.org', /is where the API of this server is/],
      ['x.api.example.org', /belongs to the same names as api.example.org/],
      ['example.org', /belongs to the same names as api.example.org/],
      [7, /must be a string/],
    ]
    for (const [domain, words] of cases) {
      const answer = await mags.call('POST', '/mags-url-aliases', { subdomain: 'blog', workspace_id: 'web', domain })
      expect(answer, JSON.stringify(domain)).toMatchObject({ status: 400, body: { error: expect.stringMatching(words) } })
      expect(answer.body.error).toMatch(/^domain: /)
    }
    const accepted: [unknown, string | null][] = [
      [null, null],
      ['apps.example.org', null],
      ['xn--bcher-kva.example.com', 'xn--bcher-kva.example.com'],
      ['WWW.Example.co.uk.', 'www.example.co.uk'],
      ['myapps.example.org', 'myapps.example.org'],
    ]
    for (const [index, [domain, stored]] of accepted.entries())
      expect((await mags.call('POST', '/mags-url-aliases', { subdomain: `b${index}`, workspace_id: 'web', domain })).body, String(domain)).toMatchObject({
        domain: stored,
      })
  })

  it('that cannot be aliases are not asked for, and others together', async () => {
    const asked: unknown[] = []
    const answer = Promise.withResolvers<undefined>()
    const known = new KnownAliases({
      target: (by) => {
        asked.push(by)
        return answer.promise
      },
    })
    for (const label of ['0123456789ab', 'www', 'A', '../x', '']) expect(await known.find(label, 'x')).toBeUndefined()
    for (const host of ['example', '1.2.3.4', '']) expect(await known.find(undefined, host)).toBeUndefined()
    const finds = [known.find('blog', 'x'), known.find('blog', 'y'), known.find(undefined, 'blog.example.com')]
    answer.resolve(undefined)
    await Promise.all(finds)
    expect(asked).toEqual([{ subdomain: 'blog' }, { domain: 'blog.example.com' }])
  })

  it('are asked for again after a failure', async () => {
    let failing = true
    const known = new KnownAliases({ target: async () => (failing ? Promise.reject(new Error('no')) : { accountId: 'local', workspaceId: 'web' }) })
    await expect(known.find('blog', 'x')).rejects.toThrow('no')
    failing = false
    expect(await known.find('blog', 'x')).toEqual({ accountId: 'local', workspaceId: 'web' })
  })
})
