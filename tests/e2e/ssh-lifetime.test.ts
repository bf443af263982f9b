import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { untilStatus } from '../kit/jobs.ts'
import { canTest, notRoot } from '../kit/require.ts'
import { openSshClient, runProgram, Terminal } from '../kit/ssh-client.ts'
import { SshGround } from '../kit/ssh-ground.ts'

const ground = new SshGround({ MAGS_ISOLATION: 'container' })
const ok = (command: string) => ground.ok(command)
const state = async () => (await ground.api.mags.status(ground.job)).status

/** What SSH to a job has to outlive: the server's end, and sleep. One daemon after the other over one folder. */
describe.runIf(canTest('MAGS_REQUIRE_CONTAINER', notRoot))('SSH to a container', { timeout: 30_000 }, () => {
  beforeAll(() => ground.open())
  afterAll(() => ground.close())

  describe.each([
    ['in order', 'stop'],
    ['by a crash', 'crash'],
  ] as const)('a server that ends %s', (_, how) => {
    it('leaves the sandbox and what runs in the background; the next one has the same port and keys', async () => {
      const background = (await ok('nohup sleep 5000 >/dev/null 2>&1 & echo $!')).trim()
      const before = { host: await ok('hostname'), access: ground.client.access, known: readFileSync(join(ground.folder, 'known_hosts'), 'utf8') }
      await using shell = ground.terminal()
      await shell.sees(/# $/)
      shell.say(`echo pid''=$$; sleep 4000\n`)
      const [, pid] = await shell.sees(/pid=(\d+)/)
      await ground.daemon[how]()
      expect(await shell.ended).toBe(255)
      if (how === 'stop') expect(shell.text).toContain('The gateway is closing; connect again')
      await ground.start()
      expect(await ok(`hostname; kill -0 ${background} && echo lives`)).toBe(`${before.host}lives\n`)
      const { access } = await openSshClient(ground.api, ground.job, ground.folder)
      expect({ access, known: readFileSync(join(ground.folder, 'known_hosts'), 'utf8') }).toEqual({ access: before.access, known: before.known })
      // As when a client goes away: its shell is hung up on.
      await expect.poll(async () => (await ground.client.ssh(`kill -0 ${pid}`)).code, { timeout: 10_000 }).toBe(1)
      await ok(`kill ${background}`)
    })
  })

  describe('sleep', () => {
    beforeAll(async () => {
      await ground.daemon.stop()
      await ground.start({ MAGS_SLEEP_SECONDS: '2', MAGS_SLEEP_CHECK_SECONDS: '1' })
    })

    it('ends when somebody connects, and all goes on', async () => {
      const background = (await ok('nohup sleep 5000 >/dev/null 2>&1 & echo $!')).trim()
      await ground.api.call('POST', `mags-jobs/${ground.job}/sleep`)
      expect(await state()).toBe('sleeping')
      expect(await ok(`kill -0 ${background} && echo lives`)).toBe('lives\n')
      expect(await state()).toBe('running')
    })

    it('ends also when its sandbox was given up, or the server began anew meanwhile', async () => {
      await ok('echo kept > /root/kept')
      const before = await ok('hostname')
      expect(await ground.api.call('POST', `mags-jobs/${ground.job}/sleep`, { release: true })).toMatchObject({ sleep_stage: 'released' })
      await ground.daemon.stop()
      await ground.start({ MAGS_SLEEP_SECONDS: '2', MAGS_SLEEP_CHECK_SECONDS: '1' })
      expect(await state()).toBe('sleeping')
      expect(await ok('cat /root/kept')).toBe('kept\n')
      expect(await ok('hostname')).not.toBe(before)
    })

    it('comes while a connection has nothing open, and its next command ends it', async () => {
      const control = join(ground.folder, 'idle')
      await using _master = new Terminal('ssh', ground.client.args('-N', '-M', '-S', control, ground.target))
      const over = (...words: string[]) => runProgram('ssh', ['-F', '/dev/null', '-S', control, ground.target, ...words])
      await expect.poll(async () => (await runProgram('ssh', ['-S', control, '-O', 'check', ground.target])).code, { timeout: 20_000 }).toBe(0)
      expect((await over('true')).code).toBe(0)
      await untilStatus(ground.api.mags, ground.job, ({ status }) => status === 'sleeping')
      expect((await over('echo awake')).stdout.toString()).toBe('awake\n')
    })

    it('does not come while a shell is open, and does once it is closed', async () => {
      await using shell = ground.terminal()
      await shell.sees(/# $/)
      shell.say(`sleep 4; echo wo''ken\n`)
      await expect(ground.api.call('POST', `mags-jobs/${ground.job}/sleep`)).rejects.toMatchObject({
        body: { error: expect.stringMatching(/is in use: .* open/) },
      })
      // Two rounds of the rule are over by then.
      await shell.sees(/woken/)
      expect(await state()).toBe('running')
      shell.say('exit\n')
      expect(await shell.ended).toBe(0)
      await untilStatus(ground.api.mags, ground.job, ({ status }) => status === 'sleeping')
    })
  })
})
