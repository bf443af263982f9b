import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { startDaemon } from '../kit/daemon.ts'
import { leftOf } from '../kit/leaks.ts'
import { canTest, notRoot } from '../kit/require.ts'
import { httpServerLine } from '../kit/sandbox-server.ts'
import { openSshClient, runProgram, Terminal } from '../kit/ssh-client.ts'
import { WorkspaceClient } from '../kit/workspace-client.ts'

const firstPort = 21_005 + (process.pid % 1_000) * 10

/** In a virtual machine: a little of everything, because the way of the bytes is another one. */
describe.runIf(canTest('MAGS_REQUIRE_VM', notRoot))('SSH to a virtual machine', { timeout: 120_000 }, () => {
  it('runs commands and shells, copies, forwards, and wakes it', async () => {
    await using undo = new AsyncDisposableStack()
    const folder = mkdtempSync(join(tmpdir(), 'mags-ssh-'))
    undo.defer(() => rmSync(folder, { recursive: true, force: true }))
    const daemon = await startDaemon({ MAGS_ISOLATION: 'vm', MAGS_POOL_MIN: '1', MAGS_POOL_MAX: '1', MAGS_SSH_FIRST_PORT: String(firstPort) })
    undo.use(daemon)
    const api = new WorkspaceClient(daemon)
    const job = await api.open({ name: 'vm' })
    const client = await openSshClient(api, job, folder)
    const target = `root@${client.access.ssh_host}`
    const input = randomBytes(300_000)
    const echo = await client.ssh('cat; echo words >&2; exit 9', input)
    expect([echo.code, echo.stdout.equals(input), echo.stderr]).toEqual([9, true, 'words\n'])
    await using shell = new Terminal('ssh', client.args(target))
    await shell.sees(/# $/)
    shell.say(`echo si''ze=$(stty size); exec ${httpServerLine} 8080\n`)
    await shell.sees(/size=31 97\r\n8080\r/)
    const socket = join(folder, 'forward')
    await using forward = new Terminal('ssh', client.args('-L', `${socket}:localhost:8080`, target, 'echo up; cat'))
    await forward.sees(/up/)
    expect((await runProgram('curl', ['-sS', '--unix-socket', socket, 'http://localhost/'])).stdout.toString()).toBe('from the sandbox\n')
    forward.say('\u0004')
    shell.say('\u0003')
    await Promise.all([shell.ended, forward.ended])
    writeFileSync(join(folder, 'sent'), input)
    const scp = [...client.options, '-P', String(client.access.ssh_port), '-q']
    expect((await runProgram('scp', [...scp, join(folder, 'sent'), `${target}:/root/a b`])).code).toBe(0)
    await api.call('POST', `mags-jobs/${job}/sleep`, { release: true })
    expect((await runProgram('scp', [...scp, `${target}:/root/a b`, join(folder, 'back')])).code).toBe(0)
    expect(readFileSync(join(folder, 'back')).equals(input)).toBe(true)
    await api.stop(job)
    await daemon.stop()
    expect(leftOf(daemon)).toEqual([])
  })
})
