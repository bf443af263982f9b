import { mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { Mags } from '@mags/sdk'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { runMags } from '../kit/command-line.ts'
import { makePlace, startDaemon, type TestDaemon } from '../kit/daemon.ts'
import { isFinal, untilStatus } from '../kit/jobs.ts'
import { canTest, notRoot } from '../kit/require.ts'

describe.runIf(canTest('MAGS_REQUIRE_CONTAINER', notRoot))('the command line', () => {
  describe('with a server', () => {
    let daemon: TestDaemon
    let env: Record<string, string>

    beforeAll(async () => {
      daemon = await startDaemon({ MAGS_ISOLATION: 'container' })
      env = { HOME: daemon.home }
    })

    afterAll(async () => {
      await daemon?.[Symbol.asyncDispose]()
    })

    it('runs a script: both outputs apart, its exit code', async () => {
      const { code, stdout, stderr } = await runMags(['run', 'echo Hello World; echo oops >&2; exit 7'], { env })
      expect([code, stdout]).toEqual([7, 'Hello World\n'])
      expect(stderr).toContain('oops\n')
    })

    it('reads a script from standard input, and passes the environment on', async () => {
      const { code, stdout } = await runMags(['run', '--env', 'NAME=two words', '-'], { env, input: 'echo "hello $NAME"\npwd\nid -u\n' })
      expect([code, stdout]).toEqual([0, 'hello two words\n/root\n0\n'])
    })

    it('ends a script at its deadline with 124', async () => {
      const { code, stderr } = await runMags(['run', '-t', '1', 'sleep 60'], { env })
      expect(code).toBe(124)
      expect(stderr).toContain('timed out after 1 s')
    })

    it('stops the job on Ctrl-C and ends with 130', async () => {
      const { code } = await runMags(['run', '-n', 'interrupted', 'echo begun; sleep 1000'], {
        env,
        onStdout: (text, kill) => {
          if (text === 'begun\n') kill('SIGINT')
        },
      })
      expect(code).toBe(130)
      const mags = new Mags({ apiUrl: daemon.url, apiToken: daemon.token })
      expect((await untilStatus(mags, 'interrupted', isFinal)).status).toBe('stopped')
    })

    it('keeps a persistent job, runs commands in it, lists, follows and stops it', async () => {
      const started = await runMags(['run', '-p', '-n', 'rest', 'echo ready'], { env })
      expect(started.code).toBe(0)
      expect(await runMags(['exec', 'rest', 'cat; exit 3'], { env, input: 'through' })).toMatchObject({ code: 3, stdout: 'through' })
      const listed = JSON.parse((await runMags(['list', '--json'], { env })).stdout) as { jobs: { name: string; status: string }[] }
      expect(listed.jobs.find(({ name }) => name === 'rest')).toMatchObject({ status: 'running' })
      expect((await runMags(['logs', 'rest'], { env })).stdout).toContain('ready')
      expect((await runMags(['stop', 'rest'], { env })).code).toBe(0)
      expect(JSON.parse((await runMags(['status', 'rest', '--json'], { env })).stdout)).toMatchObject({ status: 'stopped', isolation: 'container' })
    })

    it('says what is wrong with flags, names and images, with 2 for usage', async () => {
      expect(await runMags(['run', '--isolatoin', 'vm', 'true'], { env })).toMatchObject({ code: 2, stderr: expect.stringContaining('--isolation') })
      expect(await runMags(['run', '-n', '../etc', 'true'], { env })).toMatchObject({
        code: expect.not.toBeOneOf([0]),
        stderr: expect.stringContaining('name'),
      })
      const image = await runMags(['run', '--image', 'nope', 'true'], { env })
      expect(image.code).toBe(1)
      expect(image.stderr).toContain('debian-12')
      expect((await runMags(['run', '--isolation', 'vm', 'true'], { env })).stderr).toContain('cannot be had on this server')
    })
  })

  it('starts a server when none answers, once, with a token only its user can read', async () => {
    await using place = await makePlace()
    const port = await freePort()
    await mkdir(join(place.home, '.mags'), { mode: 0o700 })
    const configFile = join(place.home, '.mags', 'config.json')
    await writeFile(configFile, JSON.stringify({ api_url: `http://127.0.0.1:${port}` }), { mode: 0o600 })
    const env = { HOME: place.home, MAGS_DATA_DIR: place.dataDir, MAGS_ISOLATION: 'container' }
    try {
      const both = await Promise.all([runMags(['run', 'echo one'], { env }), runMags(['run', 'echo two'], { env })])
      expect(both.map(({ code, stdout }) => [code, stdout])).toEqual([
        [0, 'one\n'],
        [0, 'two\n'],
      ])
      expect((await stat(configFile)).mode & 0o777).toBe(0o600)
    } finally {
      const log = await readFile(join(place.home, '.mags', 'server.log'), 'utf8')
      const pids = new Set([...log.matchAll(/"pid":(\d+)[^\n]*"msg":"ready"/g)].map(([, pid]) => Number(pid)))
      for (const pid of pids) process.kill(pid, 'SIGTERM')
      for (const pid of pids) await untilGone(pid)
      expect(pids.size).toBe(1)
    }
  })
})

async function freePort() {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

async function untilGone(pid: number) {
  for (;;) {
    try {
      process.kill(pid, 0)
    } catch {
      return
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
