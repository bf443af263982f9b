import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type ImageTaskEvent, Mags, MagsApiError } from '@mags/sdk'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemDir } from '../kit/container-ground.ts'
import { startDaemon, type TestDaemon } from '../kit/daemon.ts'
import { isRunning, untilStatus } from '../kit/jobs.ts'
import { leftOf } from '../kit/leaks.ts'
import { canTest, notRoot } from '../kit/require.ts'

const run = promisify(execFile)

/** Images are of the whole machine: names of their own, which go at the end. */
const named = (what: string) => `test-${randomBytes(4).toString('hex')}-${what}`

// biome-ignore-start lint/suspicious/noTemplateCurlyInString: how Dockerfiles have them.
describe.runIf(canTest('MAGS_REQUIRE_CONTAINER', notRoot))('images', () => {
  let daemon: TestDaemon
  let mags: Mags
  let folder: string
  const made = new Set<string>()

  /** Follows a task; what it said, and how it ended. */
  async function followed(taskId: string) {
    const events: ImageTaskEvent[] = []
    for await (const event of mags.images.followTask(taskId)) events.push(event)
    const end = events.at(-1)
    if (end?.type !== 'end') throw new Error('a task without an end')
    return { said: events.flatMap((event) => (event.type === 'log' ? [event.row.message] : [])).join('\n'), end }
  }

  async function contextOf(files: Readonly<Record<string, string>>): Promise<Buffer> {
    const context = await mkdtemp(join(folder, 'context-'))
    for (const [path, content] of Object.entries(files)) {
      await mkdir(join(context, path, '..'), { recursive: true })
      await writeFile(join(context, path), content)
    }
    const { stdout } = await run('tar', ['-C', context, '-cf', '-', '.'], { encoding: 'buffer', maxBuffer: 2 ** 26 })
    return stdout
  }

  async function build(name: string, files: Readonly<Record<string, string>>, buildArgs: Record<string, string> = {}) {
    made.add(name)
    const { task_id: id } = await mags.images.build({ name, context: await contextOf(files), buildArgs })
    return await followed(id)
  }

  async function importFile(name: string, file: string) {
    made.add(name)
    const { task_id: id } = await mags.images.import({ name, file })
    return await followed(id)
  }

  beforeAll(async () => {
    folder = await mkdtemp('/var/tmp/mags-images-')
    daemon = await startDaemon({ MAGS_ISOLATION: 'container', MAGS_POOL_MIN: '1' })
    mags = new Mags({ apiUrl: daemon.url, apiToken: daemon.token })
  }, 240_000)

  afterAll(async () => {
    for (const name of made) await mags.images.remove(name).catch(() => undefined)
    await daemon.stop()
    // The sandbox of the last job may still have been on its way out.
    for (const name of made) await rm(join(systemDir, 'images', name), { recursive: true, force: true })
    const left = leftOf(daemon)
    await daemon[Symbol.asyncDispose]()
    await rm(folder, { recursive: true })
    expect(left).toEqual([])
  }, 120_000)

  it('are built from a Dockerfile with several stages, in sandboxes', async () => {
    const name = named('app')
    const dockerfile = [
      'ARG BASE=debian-12',
      'FROM ${BASE} AS tools',
      'WORKDIR /src',
      'COPY *.txt sub ./',
      'RUN cat a.txt b.txt > built && ln -s built link && mkdir empty && ls -a',
      'FROM tools AS unneeded',
      'RUN exit 9',
      'FROM ${BASE}',
      'ARG WHO',
      'ENV GREETING="hello ${WHO}" PATH=/opt/bin:$PATH',
      'RUN useradd --create-home worker',
      'COPY --from=tools --chown=worker:worker /src /opt/src/',
      'COPY --chmod=0755 tool /opt/bin/',
      'RUN <<END',
      'echo "$GREETING" > /opt/greeting',
      'tool',
      'chmod 4755 /opt/bin/tool',
      'END',
      'USER worker',
      'RUN id -un > ~/who; touch /root/no || true',
      'CMD ["tool"]',
    ]
    const { said, end } = await build(
      name,
      { Dockerfile: dockerfile.join('\n'), 'a.txt': 'A\n', 'sub/b.txt': 'B\n', tool: '#!/bin/sh\necho the tool\n', 'not.copied': '' },
      { WHO: 'me' },
    )
    expect(end).toMatchObject({ status: 'completed', error: null })
    expect(said).toContain('the tool')
    expect(said).not.toContain('exit 9')
    const script =
      'cat /opt/greeting /opt/src/built /home/worker/who; cd /opt; stat -c "%U %a %n" src src/a.txt bin/tool src/empty; readlink src/link; ls /root /tmp /src 2>&1; head -1 /etc/hosts'
    const { stdout } = await mags.runAndWait(script, { image: name })
    expect(stdout.split('\n')).toEqual([
      ...['hello me', 'A', 'B', 'worker', 'worker 755 src', 'worker 644 src/a.txt', 'root 4755 bin/tool', 'worker 755 src/empty', 'built'],
      ...["ls: cannot access '/src': No such file or directory", '/root:', '', '/tmp:', '127.0.0.1\tlocalhost', ''],
    ])
    const { versions } = await mags.images.get(name)
    expect(versions).toMatchObject([
      {
        digest: end.digest,
        current: true,
        source: { kind: 'dockerfile', reference: 'Dockerfile', command: ['tool'] },
        environment: { GREETING: 'hello me' },
        used_by: { workspaces: [], jobs: [] },
      },
    ])
  }, 240_000)

  it('a stage goes on where an earlier one ended', async () => {
    const name = named('stages')
    const { end } = await build(name, { Dockerfile: 'FROM debian-12 AS base\nENV A=1\nRUN echo base > /base\nFROM base\nRUN echo "$A $(cat /base)" > /top\n' })
    expect(end).toMatchObject({ status: 'completed' })
    expect((await mags.runAndWait('cat /top', { image: name })).stdout).toBe('1 base\n')
  }, 240_000)

  it('keeps what files are', async () => {
    const name = named('kept')
    const dockerfile = `FROM debian-12
WORKDIR /kept
RUN echo 1 > a && ln a b && cp /bin/true suid && chown 65535:7 suid && chmod 4711 suid && mkdir -m 0351 odd
RUN cp "$(command -v ping)" capable && setcap cap_net_raw=ep capable && ln -s /nowhere link && mkfifo -m 0600 pipe
RUN touch -d '2001-02-03 04:05:06.123456789 UTC' "$(printf 'latin\\351 new\\nline')" && chmod 1777 . && touch -d '2002-01-01 UTC' .
`
    const { end } = await build(name, { Dockerfile: dockerfile })
    expect(end).toMatchObject({ status: 'completed', error: null })
    const list = `cd /kept; stat -c '%N %A %u:%g %h' a b suid capable link pipe; stat -c %a odd; getcap capable; stat -c %Y .; stat -c %.9Y latin*; ls --quoting-style=c latin*`
    const { stdout } = await mags.runAndWait(list, { image: name })
    expect(stdout.split('\n')).toEqual([
      ...["'a' -rw-r--r-- 0:0 2", "'b' -rw-r--r-- 0:0 2", "'suid' -rws--x--x 65535:7 1", "'capable' -rwxr-xr-x 0:0 1"],
      ...["'link' -> '/nowhere' lrwxrwxrwx 0:0 1", "'pipe' prw------- 0:0 1", '351', 'capable cap_net_raw=ep', '1009843200', '981173106.123456789'],
      ...['"latin\\351 new\\nline"', ''],
    ])
  }, 240_000)

  it('a build that fails says where, and leaves nothing', async () => {
    const name = named('failed')
    const { end, said } = await build(name, { Dockerfile: 'FROM debian-12\nRUN echo begun\nRUN ls /nope\n' })
    expect(end).toMatchObject({ status: 'failed', digest: null, error: 'Dockerfile line 3: RUN ls /nope: ended with exit code 2' })
    expect(said).toContain("ls: cannot access '/nope'")
    await expect(mags.images.get(name)).rejects.toMatchObject({ status: 404 })
    const cancelled = await mags.images.build({ name, context: await contextOf({ Dockerfile: 'FROM debian-12\nRUN echo begun; sleep 1000\n' }) })
    for await (const event of mags.images.followTask(cancelled.task_id)) {
      if (event.type === 'log' && event.row.message === 'begun') await mags.images.cancelTask(cancelled.task_id)
      if (event.type === 'end') expect(event).toMatchObject({ status: 'failed', error: 'cancelled' })
    }
  }, 120_000)

  it('a root file system and an OCI layout become images that run, and are not deleted while something needs them', async () => {
    const base = named('base')
    await build(base, { Dockerfile: 'FROM debian-12\nRUN echo mine > /mine && tar -C / --one-file-system --exclude=./root.tar -cf /root.tar .\n' })
    const job = await mags.run('sleep 1000', { image: base, persistent: true })
    const root = join(folder, 'root.tar')
    await untilStatus(mags, job.request_id, isRunning)
    await mags.copyOut(job.request_id, '/root.tar', root)
    const plain = named('plain')
    expect((await importFile(plain, root)).end).toMatchObject({ status: 'completed' })
    expect((await mags.runAndWait('cat /mine; id -u', { image: plain })).stdout).toBe('mine\n0\n')

    const layout = join(folder, 'layout')
    await run('umoci', ['init', '--layout', layout])
    await run('umoci', ['new', '--image', `${layout}:x`])
    await run('umoci', ['raw', 'add-layer', '--image', `${layout}:x`, root])
    await run('umoci', ['config', '--image', `${layout}:x`, '--config.env', 'A=b', '--config.workingdir', '/srv'])
    await run('tar', ['-C', layout, '-cf', join(folder, 'layout.tar'), '.'])
    const oci = named('oci')
    expect((await importFile(oci, join(folder, 'layout.tar'))).end).toMatchObject({ status: 'completed' })
    await mags.runAndWait('cat /mine > /root/kept', { image: oci, workspaceId: oci })
    expect((await mags.images.get(oci)).versions).toMatchObject([
      { source: { kind: 'oci-layout' }, environment: { A: 'b' }, working_directory: '/srv', used_by: { workspaces: [oci] } },
    ])

    const refused = (name: string, by: string) =>
      expect(mags.images.remove(name)).rejects.toSatisfy(
        (error) => error instanceof MagsApiError && error.status === 409 && error.code === 'image_in_use' && error.message.includes(by),
      )
    await refused(oci, `workspace ${oci}`)
    await refused(base, job.request_id)
    await refused('debian-12', 'debian-12')
    await mags.stop(job.request_id)
    await mags.deleteWorkspace(oci)
    await mags.images.remove(oci)
    const names = (await mags.images.list({ pageSize: 100 })).images.map((image) => image.name)
    expect(names).toContain(plain)
    expect(names).not.toContain(oci)
  }, 300_000)

  it('archives that lead out of themselves are refused by their entry', async () => {
    const file = join(folder, 'bad.tar')
    await writeFile(join(folder, 'x'), 'x')
    await run('tar', ['-C', folder, '-cPf', file, '--transform=s,^x,../../etc/x,', 'x'])
    const name = named('bad')
    made.add(name)
    await expect(
      mags.images
        .import({ name, file })
        .then(({ task_id: id }) => followed(id))
        .then(({ end }) => end),
    ).rejects.toThrow(/\.\.\/\.\.\/etc\/x/)
    await expect(mags.images.get(name)).rejects.toMatchObject({ status: 404 })
  }, 120_000)

  it('an address that does not answer is named, and how to do without it', async () => {
    const { task_id: id } = await mags.images.import({ name: named('none'), reference: 'registry.invalid/x:1' })
    expect((await followed(id)).end).toMatchObject({ status: 'failed', error: expect.stringMatching(/registry\.invalid.*mags image import/s) as string })
  }, 120_000)
})
// biome-ignore-end lint/suspicious/noTemplateCurlyInString: how Dockerfiles have them.
