import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startDaemon, type TestDaemon } from '../kit/daemon.ts'
import { canTest, notRoot } from '../kit/require.ts'

/** Files by plain HTTP, with a real server and real containers; `mags cp` and the SDK have tests of their own. */
if (canTest('MAGS_REQUIRE_CONTAINER', notRoot)) {
  describe('files over the API', () => {
    let daemon: TestDaemon
    let job = ''

    const send = (method: string, path: string, body?: FormData | string | Buffer<ArrayBuffer>, headers: Record<string, string> = {}) =>
      fetch(`${daemon.url}/api/v1${path}`, {
        method,
        headers: { authorization: `Bearer ${daemon.token}`, ...headers },
        ...(body === undefined ? {} : { body }),
      })
    const json = async <T>(answer: Promise<Response>) => (await (await answer).json()) as T
    const submit = async (request: Record<string, unknown>) =>
      (
        await json<{ request_id: string }>(
          send('POST', '/mags-jobs', JSON.stringify({ isolation: 'container', ...request }), { 'content-type': 'application/json' }),
        )
      ).request_id
    const followed = async (id: string) => await (await send('GET', `/mags-jobs/${id}/logs?follow=true`)).text()
    const exec = async (command: string) =>
      (await json<{ stdout: string }>(send('POST', `/mags-jobs/${job}/exec`, JSON.stringify({ command }), { 'content-type': 'application/json' }))).stdout

    beforeAll(async () => {
      daemon = await startDaemon()
      job = await submit({ script: 'true', persistent: true })
      for (let status = ''; status !== 'running'; ) status = (await json<{ status: string }>(send('GET', `/mags-jobs/${job}/status`))).status
    })

    afterAll(async () => {
      await daemon?.[Symbol.asyncDispose]()
    })

    it('gives a job its files before its script starts', async () => {
      const form = new FormData()
      const content = randomBytes(2_000_000)
      form.append('file', new Blob([content]), 'C:\\data\\in put.bin')
      const file = await json<{ file_id: string; file_name: string }>(send('POST', '/mags-files', form))
      expect(file.file_name).toBe('in put.bin')
      const id = await submit({ script: 'sha256sum "in put.bin" && stat -c %a:%U in*', file_ids: [file.file_id] })
      const expected = execFileSync('sha256sum', ['-'], { input: content }).toString().split(' ')[0] ?? ''
      const log = await followed(id)
      expect(log).toContain(expected)
      expect(log).toContain('644:root')
    })

    it('writes, reads, lists and removes', async () => {
      const content = randomBytes(5_000_000)
      expect((await send('PUT', `/mags-jobs/${job}/files?path=/srv/new/tool&mode=0755`, content)).status).toBe(200)
      expect(await exec('stat -c %a:%s /srv/new/tool')).toBe('755:5000000\n')
      const read = await send('GET', `/mags-jobs/${job}/files?path=/srv/new/tool`)
      expect(Buffer.from(await read.arrayBuffer()).equals(content)).toBe(true)
      const part = await send('GET', `/mags-jobs/${job}/files?path=/srv/new/tool`, undefined, { range: 'bytes=-3' })
      expect([part.status, Buffer.from(await part.arrayBuffer())]).toEqual([206, content.subarray(-3)])
      expect(await (await send('GET', `/mags-jobs/${job}/files?path=/proc/sys/kernel/hostname`)).text()).toBe(await exec('hostname'))
      expect(await json(send('GET', `/mags-jobs/${job}/files/list?path=/srv/new`))).toMatchObject({
        entries: [{ name: 'tool', size: 5_000_000, mode: '0755' }],
      })
      expect((await send('DELETE', `/mags-jobs/${job}/files?path=/srv/new&recursive=true`)).status).toBe(200)
      expect(await exec('ls /srv')).toBe('')
      expect(await json(send('GET', `/mags-jobs/${job}/files?path=/srv/new/tool`))).toMatchObject({ code: 'not_found' })
    })

    it('carries folders as archives', async () => {
      const folder = mkdtempSync(join(tmpdir(), 'files-'))
      try {
        mkdirSync(join(folder, 'in/deep'), { recursive: true })
        mkdirSync(join(folder, 'out'))
        writeFileSync(join(folder, 'in/deep/large'), randomBytes(3_000_000))
        const archive = execFileSync('tar', ['-cf', '-', '-C', join(folder, 'in'), '.'], { maxBuffer: 2 ** 26 })
        expect((await send('PUT', `/mags-jobs/${job}/files/archive?path=/srv/there`, Buffer.from(archive))).status).toBe(200)
        const back = await send('GET', `/mags-jobs/${job}/files/archive?path=/srv/there`)
        execFileSync('tar', ['-xf', '-', '-C', join(folder, 'out')], { input: Buffer.from(await back.arrayBuffer()) })
        expect(readFileSync(join(folder, 'out/deep/large')).equals(readFileSync(join(folder, 'in/deep/large')))).toBe(true)
        const broken = await send('PUT', `/mags-jobs/${job}/files/archive?path=/srv/there`, 'no archive'.repeat(100))
        expect([broken.status, await broken.text()]).toEqual([400, expect.stringContaining('could not be unpacked') as string])
      } finally {
        rmSync(folder, { recursive: true, force: true })
      }
    })

    it('leaves nothing when a client goes away in the middle of a write', async () => {
      const abort = new AbortController()
      async function* half() {
        yield Buffer.alloc(1_000_000)
        while ((await exec('ls -A /srv/half 2>/dev/null')) === '') await new Promise((resolve) => setImmediate(resolve))
        abort.abort()
        await new Promise(() => undefined)
      }
      const init = {
        method: 'PUT',
        headers: { authorization: `Bearer ${daemon.token}` },
        body: half(),
        duplex: 'half',
        signal: abort.signal,
      } as unknown as RequestInit
      await expect(fetch(`${daemon.url}/api/v1/mags-jobs/${job}/files?path=/srv/half/file`, init)).rejects.toThrow()
      while ((await exec('ls -A /srv/half')) !== '') await new Promise((resolve) => setImmediate(resolve))
    })
  })
}
