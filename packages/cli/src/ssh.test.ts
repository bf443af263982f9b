import { chmod, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { FakeServer, type SeenRequest, sendJson } from './testing/fake-server.ts'
import { buildCli, newHome, runCli } from './testing/run-cli.ts'

const privateKey = `-----BEGIN OPENSSH PRIVATE KEY-----\n${'A'.repeat(70)}\nAA==\n-----END OPENSSH PRIVATE KEY-----\n`
let home: Awaited<ReturnType<typeof newHome>>
let server: FakeServer
/** What POST …/access answers, by the name that it is asked for. */
let access: (name: string) => readonly [number, Readonly<Record<string, unknown>>]

const granted = { success: true, message: 'SSH proxy enabled', access_type: 'ssh_proxy', ssh_host: '127.0.0.1', ssh_port: 40_007, ssh_private_key: privateKey }
const missing = { error: "no job 'x'", code: 'not_found' }

beforeAll(() => buildCli())
beforeEach(async () => {
  home = await newHome()
  server = await new FakeServer({ true: { status: { persistent: true } } }).listen()
  access = () => [200, granted]
  server.intercept = (request, response) => {
    const [, name] = /^\/mags-jobs\/([^/]+)\/access$/.exec(request.path) ?? []
    if (name === undefined) return false
    sendJson(response, ...access(decodeURIComponent(name)))
    return true
  }
  // A program `ssh` that tells its arguments and ends with 7.
  await mkdir(join(home.path, 'bin'))
  await writeFile(join(home.path, 'bin/ssh'), '#!/bin/sh\nprintf "%s\\n" "$@"\nread line && echo "heard $line"\necho trouble >&2\nexit 7\n')
  await chmod(join(home.path, 'bin/ssh'), 0o755)
})
afterEach(async () => {
  await server[Symbol.asyncDispose]()
  await home[Symbol.asyncDispose]()
})

const mags = (...args: string[]) => runCli(args, { server, home: home.path, env: { PATH: `${join(home.path, 'bin')}:${process.env.PATH}` }, input: 'words\n' })
const keys = async () => (await readdir(join(home.path, '.mags/ssh'))).filter((name) => name.endsWith('.key'))

describe('mags ssh', () => {
  it('runs ssh with the key of the job on its own terminal and ends as it does', async () => {
    const { code, stdout, stderr } = await mags('ssh', 'webapp')
    expect({ code, stderr }).toEqual({ code: 7, stderr: 'trouble\n' })
    const lines = stdout.split('\n')
    expect(lines).toEqual(expect.arrayContaining(['Port=40007', 'User=root', 'StrictHostKeyChecking=accept-new', 'IdentitiesOnly=yes', 'heard words']))
    expect(lines.slice(-4, -1)).toEqual(['--', '127.0.0.1', 'heard words'])
    expect(server.seen('POST', /\/access$/).map((request: SeenRequest) => [request.path, request.body])).toEqual([['/mags-jobs/webapp/access', { port: 22 }]])
    const [key = ''] = await keys()
    const file = join(home.path, '.mags/ssh', key)
    expect(lines).toContain(`IdentityFile="${file}"`)
    expect(await readFile(file, 'utf8')).toBe(privateKey)
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    expect((await stat(join(home.path, '.mags/ssh'))).mode & 0o777).toBe(0o700)
    expect(await readdir(join(home.path, '.mags/ssh'))).toEqual([key])
  })

  it('passes a command on, flags of it included', async () => {
    const { stdout } = await mags('ssh', '-t', 'webapp', 'ls', '-la', '--json', 'a b')
    expect(stdout.split('\n').slice(-9, -1)).toEqual(['-t', '--', '127.0.0.1', 'ls', '-la', '--json', 'a b', 'heard words'])
  })

  it('prints the command line and a block for ~/.ssh/config', async () => {
    const { code, stdout } = await mags('ssh', '--print', 'webapp')
    expect(code).toBe(0)
    expect(stdout).toMatch(/^# ssh -o Port=40007 .* -- 127\.0\.0\.1\n/)
    expect(stdout).toContain('Host mags-webapp\n  HostName 127.0.0.1\n  Port 40007\n  User root\n')
    expect(stdout).not.toContain('heard')
  })

  it('prints JSON without the key', async () => {
    const { stdout } = await mags('ssh', '--json', 'webapp')
    expect(JSON.parse(stdout)).toMatchObject({ ssh_host: '127.0.0.1', ssh_port: 40_007, user: 'root', command: expect.arrayContaining(['ssh', '127.0.0.1']) })
    expect(stdout).not.toContain('PRIVATE')
  })

  it('starts a sandbox when there is none of that name, and says so', async () => {
    access = (name) => (name === 'fresh' ? [404, missing] : [200, granted])
    const { code, stderr } = await mags('ssh', 'fresh')
    expect(code).toBe(7)
    expect(stderr).toContain("mags: no sandbox 'fresh' runs: starting one on the workspace 'fresh'")
    expect(server.seen('POST', /^\/mags-jobs$/).map((request) => request.body)).toEqual([
      { script: 'true', name: 'fresh', workspace_id: 'fresh', persistent: true },
    ])
  })

  it('starts one when the last of that name is over, and not when it runs', async () => {
    await runCli(['run', '--detach', '-n', 'old', 'done'], { server, home: home.path })
    const notRunning = { error: 'the job is over', code: 'job_not_running' }
    access = (name) => (name === 'old' ? [400, notRunning] : [200, granted])
    expect((await mags('ssh', 'old')).code).toBe(7)
    expect(server.seen('POST', /^\/mags-jobs$/)).toHaveLength(2)
    access = () => [400, { error: 'the job is not persistent', code: 'job_not_running' }]
    await runCli(['run', '--detach', '-n', 'busy', 'true'], { server, home: home.path })
    expect(await mags('ssh', 'busy')).toMatchObject({ code: 1, stderr: expect.stringContaining('the job is not persistent') })
    expect(server.seen('POST', /^\/mags-jobs$/)).toHaveLength(3)
  })

  it('starts nothing for an id, or a name that none can have', async () => {
    access = () => [404, missing]
    expect((await mags('ssh', '00000000-0000-4000-8000-000000000099')).code).toBe(1)
    expect((await mags('ssh', 'a/b')).code).toBe(2)
    expect(server.seen('POST', /^\/mags-jobs$/)).toHaveLength(0)
  })

  it('says what to install where there is no ssh', async () => {
    const { code, stderr } = await runCli(['ssh', 'webapp'], { server, home: home.path, env: { PATH: '/nonexistent' } })
    expect(code).toBe(1)
    expect(stderr).toContain("Install it: 'apt install openssh-client'")
  })

  it('takes no host from a server that would be an argument of ssh', async () => {
    for (const bad of [{ ssh_host: '-oProxyCommand=touch /tmp/x' }, { ssh_port: 0 }, { ssh_private_key: 'none' }, { ssh_host: 'a b' }]) {
      access = () => [200, { ...granted, ...bad }]
      expect(await mags('ssh', 'webapp')).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('did not say how to reach') })
    }
  })
})
