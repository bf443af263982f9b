import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import type { ImageTaskAnswer, InspectImageAnswer, ListImagesAnswer } from '@mags/protocol'
import { MagsError } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { databaseKinds, lacksDatabase, useTestDatabases } from '../../../../tests/kit/test-databases.ts'
import { startTestServer, type TestServer } from '../testing/test-server.ts'
import { tarOf } from './testing/tar-of.ts'

/** Follows a task to its end. */
async function followed(mags: TestServer, id: string): Promise<{ events: string; task: ImageTaskAnswer }> {
  const { body } = await mags.call('GET', `/image-tasks/${id}/events?follow=true`)
  return { events: String(body.text), task: (await mags.call('GET', `/image-tasks/${id}`)).body as unknown as ImageTaskAnswer }
}

async function send(mags: TestServer, query: string, body: Uint8Array, type = 'application/x-tar') {
  const headers = { authorization: `Bearer ${mags.token}`, 'content-type': type }
  const answer = await mags.server.app.inject({ method: 'POST', url: `/api/v1/images?${query}`, headers, payload: Buffer.from(body) })
  return { status: answer.statusCode, body: JSON.parse(answer.body) as Record<string, unknown> }
}

describe.each(databaseKinds)('images on %s', (kind) => {
  describe.skipIf(lacksDatabase(kind))('routes', () => {
    const newDatabase = useTestDatabases(kind)
    const start = (options: Parameters<typeof startTestServer>[0] = {}) => startTestServer({ ...options, deps: { ...options.deps, database: newDatabase() } })

    it('are listed by name with how many versions there are, and made the default', async () => {
      await using mags = await start()
      const { body } = await mags.call('POST', '/images', { name: 'alpine', recipe: 'alpine' })
      await followed(mags, String(body.task_id))
      const list = (await mags.call('GET', '/images?page_size=1')).body as unknown as ListImagesAnswer
      expect(list).toMatchObject({ total: 2, page: 1, page_size: 1, images: [{ name: 'alpine', default: false, versions: 2, digest: 'sha256:alpine-2' }] })
      expect(await mags.call('PUT', '/images/default', { name: 'alpine' })).toMatchObject({ status: 200, body: { name: 'alpine', default: true } })
      expect((await mags.call('GET', '/images')).body).toMatchObject({ images: [{ default: true }, { name: 'debian-12', default: false }] })
      expect(await mags.call('PUT', '/images/default', { name: 'nope' })).toMatchObject({
        status: 404,
        body: { error: expect.stringContaining('debian-12') as string },
      })
    })

    it('say who uses each version, and are not deleted before', async () => {
      await using mags = await start()
      await mags.ended(await mags.submit({ script: 'echo', workspace_id: 'proj', image: 'alpine' }))
      await mags.call('POST', '/mags-cron', { name: 'nightly', schedule: '@daily', script: 'echo', image: 'alpine' })
      const next = await mags.call('POST', '/images', { name: 'alpine', recipe: 'alpine' })
      await followed(mags, String(next.body.task_id))
      const job = await mags.submit({ script: 'wait', image: 'debian-12' })
      const inspected = (await mags.call('GET', '/images/alpine')).body as unknown as InspectImageAnswer
      expect(inspected.versions).toMatchObject([
        { digest: 'sha256:alpine-2', current: true, used_by: { workspaces: [], jobs: [], microvms: [], other_accounts: 0 } },
        { digest: 'sha256:a3', current: false, used_by: { workspaces: ['proj'] } },
      ])
      expect(inspected.named_by).toEqual({ jobs: [], crons: ['nightly'] })
      expect((await mags.call('GET', '/images/debian-12')).body).toMatchObject({ versions: [{ used_by: { jobs: [job] } }] })
      expect(await mags.call('DELETE', '/images/alpine')).toMatchObject({
        status: 409,
        body: { code: 'image_in_use', error: 'image alpine is in use by workspace proj; it can go once they are gone' },
      })
      expect(await mags.call('DELETE', '/images/alpine?digest=sha256:a3')).toMatchObject({ status: 409 })
      expect(await mags.call('DELETE', '/images/alpine?digest=sha256:alpine-2')).toMatchObject({ status: 200, body: { success: true } })
      await mags.call('DELETE', '/mags-workspaces/proj')
      expect(await mags.call('DELETE', '/images/alpine')).toMatchObject({ status: 200 })
      expect(await mags.call('GET', '/images/alpine')).toMatchObject({ status: 404 })
      expect(await mags.call('DELETE', '/images/debian-12')).toMatchObject({ status: 409, body: { error: expect.stringContaining(job) as string } })
    })

    it('are made by tasks that tell how far they are, once per name', async () => {
      await using mags = await start()
      const going = Promise.withResolvers<void>()
      mags.host.images.beforeCreate = async (_name, _origin, say) => {
        say('fetching packages')
        await going.promise
      }
      const first = await mags.call('POST', '/images', { name: 'mine', recipe: 'debian-12' })
      expect(first).toMatchObject({ status: 202, body: { status: 'running' } })
      const id = String(first.body.task_id)
      expect(await mags.call('POST', '/images', { name: 'mine', recipe: 'alpine' })).toMatchObject({
        status: 409,
        body: { code: 'image_in_use', error: expect.stringContaining(id) as string },
      })
      expect(await mags.call('DELETE', '/images/mine')).toMatchObject({ status: 404 })
      going.resolve()
      const { events, task } = await followed(mags, id)
      expect(task).toMatchObject({ status: 'completed', digest: 'sha256:mine-1', error: null, kind: 'recipe', reference: 'debian-12' })
      expect(events).toContain('"message":"fetching packages"')
      expect(events).toMatch(/event: end\ndata: {"status":"completed","digest":"sha256:mine-1","error":null}\n\n$/)
      const cursor = /^id: (.*)$/m.exec(events)?.[1] ?? ''
      const rest = await mags.call('GET', `/image-tasks/${id}/events`, undefined, { 'last-event-id': cursor })
      expect(rest.body.text).not.toContain('fetching')
      expect(rest.body.text).toContain('event: end')
      expect(await mags.call('GET', '/image-tasks/nope/events')).toMatchObject({ status: 404 })
    })

    it('are made for an account a few at a time, so that others get a turn', async () => {
      const gate = Promise.withResolvers<void>()
      await using mags = await start()
      mags.host.images.beforeCreate = () => gate.promise
      const tasks = []
      for (let count = 0; count < 4; count++) tasks.push((await mags.call('POST', '/images', { name: `i${count}`, recipe: 'alpine' })).body.task_id)
      expect(await mags.call('POST', '/images', { name: 'one-more', recipe: 'alpine' })).toMatchObject({ status: 429, body: { code: 'rate_limited' } })
      gate.resolve()
      for (const id of tasks) expect((await followed(mags, String(id))).task.status).toBe('completed')
      expect((await mags.call('POST', '/images', { name: 'one-more', recipe: 'alpine' })).status).toBe(202)
    })

    it('tasks fail with the words of the host, and are cancelled', async () => {
      await using mags = await start()
      mags.host.images.beforeCreate = () => Promise.reject(new MagsError('image_source_unreachable', 'http://mirror.example does not answer'))
      const failed = await mags.call('POST', '/images', { name: 'mine', reference: 'alpine:3.20' })
      expect((await followed(mags, String(failed.body.task_id))).task).toMatchObject({
        status: 'failed',
        error: 'http://mirror.example does not answer',
        kind: 'registry',
      })
      mags.host.images.beforeCreate = (_name, _origin, _say, abort) =>
        new Promise((_resolve, reject) => abort?.addEventListener('abort', () => reject(abort.reason)))
      const { body } = await mags.call('POST', '/images', { name: 'mine', recipe: 'alpine' })
      const path = `/image-tasks/${String(body.task_id)}`
      expect(await mags.call('DELETE', path)).toMatchObject({ body: { message: 'Task cancelled' } })
      expect((await followed(mags, String(body.task_id))).task).toMatchObject({ status: 'failed', error: 'cancelled' })
      expect(await mags.call('DELETE', path)).toMatchObject({ body: { message: 'Task was over already' } })
      expect((await mags.call('GET', '/images/mine')).status).toBe(404)
    })

    it('tasks that a server left behind are over at the next start, and so are those of one that is closed', async () => {
      await using mags = await start()
      mags.host.images.beforeCreate = (_name, _origin, _say, abort) =>
        new Promise((_resolve, reject) => abort?.addEventListener('abort', () => reject(abort.reason)))
      const { body } = await mags.call('POST', '/images', { name: 'mine', recipe: 'alpine' })
      await mags.server.close()
      await using next = await startTestServer({ host: mags.host, deps: mags.deps })
      expect((await next.call('GET', `/image-tasks/${String(body.task_id)}`)).body).toMatchObject({
        status: 'failed',
        error: expect.stringContaining('the server ended') as string,
      })
    })

    it.each([
      [{ name: 'x' }, 'recipe or reference: give one of them'],
      [{ name: 'x', recipe: 'a', reference: 'b' }, 'recipe or reference: give one of them'],
      [{ name: '../x', recipe: 'alpine' }, 'name: must be 1 to 63'],
      [{ name: 'x', recipe: '../../etc' }, 'recipe: must be the name of a recipe'],
    ])('refuses %j', async (request, words) => {
      await using mags = await start()
      expect(await mags.call('POST', '/images', request)).toMatchObject({ status: 400, body: { error: expect.stringContaining(words) as string } })
    })

    it('what is JSON has to arrive whole in time, and an archive that stops coming leaves nothing', async () => {
      await using mags = await startTestServer({ deps: { database: newDatabase(), limits: { requestTimeoutMs: 200 } } })
      const { hostname, port } = new URL(await mags.listen())
      const post = (type: string, query = '') => {
        const socket = connect(Number(port), hostname)
        socket.write(
          `POST /api/v1/images${query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${mags.token}\r\nContent-Type: ${type}\r\nContent-Length: 1000\r\n\r\n{`,
        )
        return socket
      }
      const [answer] = (await once(post('application/json'), 'data')) as [Buffer]
      expect(answer.toString()).toContain(' 408 ')
      const begun = Promise.withResolvers<void>()
      const failed = Promise.withResolvers<unknown>()
      mags.host.images.create = async (_name, origin) => {
        begun.resolve()
        try {
          if (origin.kind === 'archive') for await (const _part of origin.content);
        } catch (error) {
          failed.resolve(error)
        }
        throw new MagsError('image_invalid', 'cut short')
      }
      const socket = post('application/x-tar', '?name=mine')
      await begun.promise
      socket.destroy()
      expect(await failed.promise).toMatchObject({ code: 'bad_request', message: 'what was sent ended before its end; send it again' })
    })

    it('archives go to the host as they come', async () => {
      await using mags = await start()
      const seen: unknown[] = []
      mags.host.images.beforeCreate = (name, origin) => void seen.push([name, origin.kind, origin.kind === 'archive' && origin.reference])
      const answer = await send(mags, 'name=mine&reference=root.tar', new Uint8Array(3_000_000), 'application/octet-stream')
      expect(answer).toMatchObject({ status: 202 })
      expect((await followed(mags, String(answer.body.task_id))).task).toMatchObject({ status: 'completed', kind: 'archive', reference: 'root.tar' })
      expect(seen).toEqual([['mine', 'archive', 'root.tar']])
      expect(await send(mags, 'reference=root.tar', new Uint8Array(3))).toMatchObject({ status: 400, body: { error: 'name: is required' } })
      mags.host.images.beforeCreate = () => Promise.reject(new MagsError('image_invalid', 'dev/sda is a device'))
      expect(await send(mags, 'name=bad', new Uint8Array(3_000_000))).toMatchObject({
        status: 400,
        body: { code: 'image_invalid', error: 'dev/sda is a device' },
      })
    })

    it('a Dockerfile is built out of what was sent, and what was sent is gone then', async () => {
      await using mags = await start()
      const dockerfile = 'FROM debian-12\nARG WHO=nobody\nRUN echo hello $WHO\nRUN env WHO\nENV A=b\n'
      const answer = await send(
        mags,
        `name=mine&dockerfile=Dockerfile&build_args=${encodeURIComponent('{"WHO":"me"}')}`,
        await tarOf({ Dockerfile: dockerfile }),
      )
      expect(answer).toMatchObject({ status: 202 })
      const { events, task } = await followed(mags, String(answer.body.task_id))
      expect(task).toMatchObject({ status: 'completed', digest: 'sha256:mine-1', kind: 'dockerfile', error: null })
      expect(events).toContain('"message":"me"')
      expect(mags.host.sandboxes.size).toBe(0)
      expect(readdirSync(join(mags.directory, 'image-contexts'))).toEqual([])
      const again = async (query = '') => {
        const { body } = await send(mags, `name=mine&dockerfile=Dockerfile${query}`, await tarOf({ Dockerfile: 'FROM debian-12\nRUN write /a 12\n' }))
        return (await followed(mags, String(body.task_id))).events.includes('(from the cache)')
      }
      expect([await again(), await again(), await again('&no_cache=true'), await again('&no_cache=false')]).toEqual([false, true, false, true])
      expect(await mags.call('DELETE', '/image-cache')).toMatchObject({ status: 200, body: { success: true, freed_bytes: expect.any(Number) as number } })
      expect(await again()).toBe(false)
      const bad = await send(mags, 'name=bad&dockerfile=Dockerfile', await tarOf({ Dockerfile: 'FROM debian-12\nRUN exit 3\n' }))
      expect((await followed(mags, String(bad.body.task_id))).task).toMatchObject({
        status: 'failed',
        error: 'Dockerfile line 2: RUN exit 3: ended with exit code 3',
      })
      expect(await send(mags, 'name=bad&dockerfile=Dockerfile&build_args=[]', new Uint8Array(1024))).toMatchObject({
        status: 400,
        body: { error: 'build_args: must be a JSON object of strings' },
      })
      expect(mags.host.sandboxes.size).toBe(0)
    })
  })
})
