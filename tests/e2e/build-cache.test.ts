import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Mags } from '@mags/sdk'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type DaemonPlace, makePlace, startDaemon, type TestDaemon } from '../kit/daemon.ts'
import { leftOf } from '../kit/leaks.ts'
import { canTest, notRoot } from '../kit/require.ts'

const run = promisify(execFile)

/** Images are of the whole machine: a name of its own, which goes at the end. */
const name = `test-${randomBytes(4).toString('hex')}-cached`

describe.runIf(canTest('MAGS_REQUIRE_CONTAINER', notRoot))('the cache of image builds', () => {
  let place: DaemonPlace & AsyncDisposable
  let daemon: TestDaemon
  let mags: Mags

  async function start() {
    daemon = await startDaemon({ MAGS_ISOLATION: 'container', MAGS_POOL_MIN: '1' }, place)
    mags = new Mags({ apiUrl: daemon.url, apiToken: daemon.token })
  }

  /** Builds; which lines were run, which not, and how it ended. */
  async function build(dockerfile: string, options: { noCache?: boolean; file?: string } = {}) {
    const folder = await mkdtemp('/var/tmp/mags-cache-context-')
    try {
      await writeFile(join(folder, 'Dockerfile'), dockerfile)
      await writeFile(join(folder, 'file'), options.file ?? 'a file\n')
      const { stdout: context } = await run('tar', ['-C', folder, '-cf', '-', '.'], { encoding: 'buffer', maxBuffer: 2 ** 26 })
      const { task_id: id } = await mags.images.build({ name, context, noCache: options.noCache })
      const said: string[] = []
      let end: { status: string; digest: string | null; error: string | null } | undefined
      for await (const event of mags.images.followTask(id)) {
        if (event.type === 'log') said.push(event.row.message)
        else end = event
      }
      const lines = said.flatMap((words) => /^line (\d+): (?:RUN|COPY).*?(from the cache)?\)?$/.exec(words)?.slice(1) ?? [])
      const pick = (cached: boolean) => lines.filter((word, at) => at % 2 === 0 && (lines[at + 1] !== undefined) === cached && word !== undefined).map(Number)
      return { run: pick(false), cached: pick(true), said, end }
    } finally {
      await rm(folder, { recursive: true })
    }
  }

  const dockerfile = (last: string) =>
    ['FROM debian-12 AS tools', 'RUN echo tool > /tool', 'FROM debian-12', 'WORKDIR /w', 'COPY file .']
      .concat(['RUN chown 33 file && ln file hard && ln -s file soft && rm /etc/motd && mkdir -m 1777 shared', 'COPY --from=tools /tool /w/', last])
      .join('\n')

  const shown = 'cd /w && cat file soft tool && stat -c "%h %U %a %n" hard tool shared && ls /etc/motd; cat /last'

  beforeAll(async () => {
    place = await makePlace()
    await start()
  }, 240_000)

  afterAll(async () => {
    await mags.images.remove(name).catch(() => undefined)
    await daemon.stop()
    const left = leftOf(daemon)
    await daemon[Symbol.asyncDispose]()
    await place[Symbol.asyncDispose]()
    // Another server of this machine may be making a template of a version that is gone by now.
    expect(left.filter((thing) => !/\/images\/\.work\/.*\(deleted\)$/.test(thing))).toEqual([])
  }, 120_000)

  it('runs what was not run before, with the files of before, also after a restart of the server', async () => {
    const first = await build(dockerfile('RUN echo one > /last'))
    expect(first).toMatchObject({ run: [2, 5, 6, 7, 8], cached: [], end: { status: 'completed' } })
    const content = async () => (await mags.runAndWait(shown, { image: name })).stdout
    const before = await content()
    expect(before.split('\n')).toEqual(['a file', 'a file', 'tool', '2 www-data 644 hard', '1 root 644 tool', '2 root 1777 shared', 'one', ''])

    const same = await build(dockerfile('RUN echo one > /last'))
    expect(same).toMatchObject({ run: [], cached: [2, 5, 6, 7, 8], end: { status: 'completed', digest: first.end?.digest } })

    await daemon.stop()
    await daemon[Symbol.asyncDispose]()
    await start()
    const other = await build(dockerfile('RUN test ! -e /last && echo two > /last'))
    expect(other).toMatchObject({ run: [8], cached: [2, 5, 6, 7], end: { status: 'completed' } })
    expect(await content()).toBe(before.replace('one', 'two'))

    const failed = await build(dockerfile('RUN echo three > /last; exit 3'))
    expect(failed).toMatchObject({ run: [8], end: { status: 'failed', error: expect.stringContaining('line 8') as string } })
    const changed = await build(dockerfile('RUN test ! -e /last && echo two > /last'), { file: 'another\n' })
    expect(changed).toMatchObject({ run: [5, 6, 7, 8], cached: [2], end: { status: 'completed' } })
    expect(await content()).toBe(before.replace('one', 'two').replaceAll('a file', 'another'))

    expect(await build(dockerfile('RUN test ! -e /last && echo two > /last'), { noCache: true })).toMatchObject({ run: [2, 5, 6, 7, 8], cached: [] })
    expect((await mags.images.pruneCache()).freed_bytes).toBeGreaterThan(0)
    expect(await build(dockerfile('RUN echo one > /last'))).toMatchObject({ run: [2, 5, 6, 7, 8], cached: [] })
  }, 400_000)
})
