import { execFileSync } from 'node:child_process'
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Mags } from '@mags/sdk'
import { describe, expect, it } from 'vitest'
import { runMags } from '../kit/command-line.ts'
import { makePlace, startDaemon } from '../kit/daemon.ts'
import { isFinal, untilStatus } from '../kit/jobs.ts'
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
