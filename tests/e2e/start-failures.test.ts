import { execFileSync } from 'node:child_process'
import { chmod, mkdir, mkdtemp, open, rm, statfs, truncate, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Mags } from '@mags/sdk'
import { describe, expect, it } from 'vitest'
import { runMags } from '../kit/command-line.ts'
import { makePlace, startDaemon } from '../kit/daemon.ts'
import { isFinal, systemWords, untilStatus } from '../kit/jobs.ts'
import { canTest, notRoot } from '../kit/require.ts'

/** A server that cannot do its work says why, in one clear line, and what to do. */
describe.runIf(canTest('MAGS_REQUIRE_CONTAINER', notRoot))('a server', () => {
  const serve = (dataDir: string, home: string, ...more: string[]) =>
    runMags(['server', '--data-dir', dataDir, ...more], { env: { HOME: home, MAGS_ISOLATION: 'container' } })

  it('whose port is taken names it', async () => {
    await using place = await makePlace()
    const other = createServer()
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve))
    const address = other.address()
    const port = typeof address === 'object' ? `${address?.port}` : ''
    const { code, stderr } = await serve(place.dataDir, place.home, '--port', port)
    await new Promise((resolve) => other.close(resolve))
    expect(code).toBe(1)
    expect(stderr).toContain(`port ${port} on 127.0.0.1 is taken`)
  })

  it('whose data folder another one has names it', async () => {
    await using first = await startDaemon({ MAGS_ISOLATION: 'container' })
    const { code, stderr } = await serve(first.dataDir, first.home, '--port', '0')
    expect(code).toBe(1)
    expect(stderr).toContain(`another server runs on the data folder ${first.dataDir}`)
  })

  it('whose data folder is none says so', async () => {
    await using place = await makePlace()
    const file = join(place.home, 'file')
    await writeFile(file, '')
    const { code, stderr } = await serve(join(file, 'data'), place.home, '--port', '0')
    expect(code).toBe(1)
    expect(stderr).toMatch(/data folder .* cannot be made.*--data-dir/)
  })

  it('whose disk is full says so', async () => {
    await using place = await makePlace()
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', place.dataDir])
    try {
      await writeFile(join(place.dataDir, 'filler'), Buffer.alloc(48 << 10))
      const { code, stderr } = await serve(place.dataDir, place.home, '--port', '0')
      expect(code).toBe(1)
      expect(stderr).toMatch(/full|no space|ENOSPC/i)
    } finally {
      execFileSync('umount', [place.dataDir])
    }
  })

  it('whose sandboxes do not start ends jobs within 30 s with the last words of what failed', async () => {
    const bin = await mkdtemp(join(tmpdir(), 'mags-bin-'))
    const crun = execFileSync('which', ['crun'], { encoding: 'utf8' }).trim()
    await mkdir(bin, { recursive: true })
    await writeFile(join(bin, 'crun'), `#!/bin/sh\ncase "$*" in *" run "*) echo "no luck today" >&2; exit 1;; esac\nexec ${crun} "$@"\n`)
    await chmod(join(bin, 'crun'), 0o755)
    try {
      await using daemon = await startDaemon({ MAGS_ISOLATION: 'container', PATH: `${bin}:${process.env.PATH}` })
      const mags = new Mags({ apiUrl: daemon.url, apiToken: daemon.token })
      const { requestId } = await mags.run('echo never')
      const status = await untilStatus(mags, requestId, isFinal)
      expect(status.status).toBe('error')
      expect(status.error).toMatch(/no sandbox could be made within 30 s: .*no luck today.*mags doctor/s)
      expect((await mags.poolStatus()).last_failure).toContain('no luck today')
    } finally {
      await rm(bin, { recursive: true, force: true })
    }
  }, 90_000)
})

/** A disk of its own for a server, which a test fills. */
async function smallDisk(sizeMb: number) {
  await using undo = new AsyncDisposableStack()
  const place = undo.use(await makePlace())
  const image = `${place.dataDir}.img`
  undo.defer(() => rm(image, { force: true }))
  await writeFile(image, '')
  await truncate(image, sizeMb * 2 ** 20)
  execFileSync('mkfs.ext4', ['-q', '-F', '-m', '0', image])
  execFileSync('mount', ['-o', 'loop', image, place.dataDir])
  undo.defer(() => void execFileSync('umount', [place.dataDir]))
  const kept = undo.move()
  const filler = join(place.dataDir, 'filler')
  return {
    ...place,
    /** Leaves nothing. */
    async fill() {
      const { bavail, bsize } = await statfs(place.dataDir)
      // At once as far as that goes, the rest by and by.
      execFileSync('fallocate', ['-l', `${Math.max(1, bavail * bsize - 2 ** 21)}`, filler])
      await using file = await open(filler, 'a')
      for (const bytes of [2 ** 16, 2 ** 12]) {
        const block = Buffer.alloc(bytes)
        while (
          await file.write(block).then(
            () => true,
            () => false,
          )
        ) {}
      }
    },
    free: () => rm(filler, { force: true }),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

const fullDisk = /disk.* is full; free some space/

describe.runIf(canTest('MAGS_REQUIRE_CONTAINER', notRoot))('a server whose disk becomes full', () => {
  it('says so to who asks for something, has its jobs stand still, and goes on when there is room', async () => {
    await using disk = await smallDisk(300)
    await using daemon = await startDaemon({ MAGS_ISOLATION: 'container', MAGS_POOL_MIN: '1' }, disk)
    const mags = new Mags({ apiUrl: daemon.url, apiToken: daemon.token })
    const script =
      'n=0; while [ ! -e /root/enough ]; do n=$((n+1)); echo $n; head -c 3000 /dev/zero; echo; sleep 0.02; done; head -c 1000000 /dev/urandom > kept; sha256sum kept > sum'
    const { requestId } = await mags.run(script, { workspaceId: 'kept' })
    for await (const row of mags.followLogs(requestId)) if (row.message === '3') break
    await disk.fill()
    const held = await untilStatus(mags, requestId, ({ error }) => error !== null)
    expect(held).toMatchObject({ status: 'running', error: expect.stringMatching(fullDisk) })
    await expect(mags.run('true')).rejects.toMatchObject({ status: 507, code: 'storage_full', message: expect.stringMatching(fullDisk) })
    await expect(mags.exec(requestId, 'true')).rejects.toMatchObject({ code: 'storage_full' })
    await disk.free()
    await untilStatus(mags, requestId, ({ error }) => error === null)
    expect((await mags.exec(requestId, 'touch /root/enough')).exitCode).toBe(0)
    expect(await untilStatus(mags, requestId, isFinal)).toMatchObject({ status: 'completed', exit_code: 0, error: null })
    const numbers: number[] = []
    for await (const row of mags.followLogs(requestId)) if (/^[0-9]+$/.test(row.message)) numbers.push(Number(row.message))
    expect(numbers).toEqual(numbers.map((_, index) => index + 1))
    const check = await mags.run('sha256sum -c sum', { workspaceId: 'kept' })
    expect(await untilStatus(mags, check.requestId, isFinal)).toMatchObject({ status: 'completed' })
    const told = (await daemon.log()).split('\n').filter((line) => line.includes('"level":50'))
    expect(told.length).toBeLessThan(10)
  }, 120_000)
})

describe.runIf(canTest('MAGS_REQUIRE_VM', notRoot))('a virtual machine whose disk cannot grow', () => {
  it('stands still, loses nothing, and goes on when there is room', async () => {
    await using disk = await smallDisk(300)
    await using daemon = await startDaemon({ MAGS_ISOLATION: 'vm', MAGS_POOL_MIN: '1', MAGS_POOL_MAX: '1' }, disk)
    const mags = new Mags({ apiUrl: daemon.url, apiToken: daemon.token })
    const script =
      'echo begun; n=0; while [ ! -e enough ]; do n=$((n+1)); head -c 500000 /dev/urandom > f$n; sync; sha256sum f$n >> sums; sleep 0.2; done; echo 3 > /proc/sys/vm/drop_caches; sha256sum --quiet -c sums'
    const { requestId } = await mags.run(script)
    for await (const row of mags.followLogs(requestId)) if (row.message === 'begun') break
    await disk.fill()
    const held = await untilStatus(mags, requestId, ({ error }) => error !== null)
    expect(held).toMatchObject({ status: 'running', error: expect.stringMatching(fullDisk) })
    await expect(mags.exec(requestId, 'true')).rejects.toMatchObject({ code: 'storage_full' })
    await disk.free()
    await untilStatus(mags, requestId, ({ error }) => error === null)
    expect((await mags.exec(requestId, 'touch /root/enough')).exitCode).toBe(0)
    expect(await untilStatus(mags, requestId, isFinal)).toMatchObject({ status: 'completed', exit_code: 0, error: null })
    expect(await systemWords(mags, requestId)).toMatch(/the machine stands still: .*full.*\nthere is room again; the machine goes on/)
  }, 180_000)
})
