import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { runMags } from '../kit/command-line.ts'
import type { TestDaemon } from '../kit/daemon.ts'
import { untilStatus } from '../kit/jobs.ts'
import { canTest, notRoot } from '../kit/require.ts'
import { editorScript, freePort, httpServerLine } from '../kit/sandbox-server.ts'
import { openSshClient, runProgram, type SshClient, Terminal } from '../kit/ssh-client.ts'
import { SshGround } from '../kit/ssh-ground.ts'
import { digestTree, makeTree } from '../kit/tree-of-files.ts'
import type { WorkspaceClient } from '../kit/workspace-client.ts'

const ground = new SshGround({ MAGS_ISOLATION: 'container' })
const ok = (command: string, input?: Uint8Array | string) => ground.ok(command, input)

/** Everything as OpenSSH's own programs have it, against a whole daemon and real containers. */
describe.runIf(canTest('MAGS_REQUIRE_CONTAINER', notRoot))('SSH to a container', { timeout: 30_000 }, () => {
  const { firstPort } = ground
  let folder: string
  let daemon: TestDaemon
  let api: WorkspaceClient
  let job: string
  let client: SshClient
  let target: string

  beforeAll(async () => {
    await ground.open()
    ;({ folder, daemon, api, job, client, target } = ground)
  })
  afterAll(() => ground.close())

  describe('a command', () => {
    it('runs by what access answers, as pasted', async () => {
      expect(client.access).toMatchObject({ success: true, message: 'SSH proxy enabled', access_type: 'ssh_proxy', ssh_host: '127.0.0.1', ssh_port: firstPort })
      const { ssh_port: port, ssh_host: host } = client.access
      const trust = `-o StrictHostKeyChecking=no -o UserKnownHostsFile=${folder}/pasted`
      const line = `ssh ${trust} -i ${client.keyFile} -p ${port} root@${host} 'echo "$USER in $PWD"; hostname'`
      const { code, stdout } = await runProgram('/bin/sh', ['-c', line])
      expect([code, stdout.toString()]).toEqual([0, expect.stringMatching(/^root in \/root\nmags-[0-9a-f]{8}\n$/)])
    })

    it('ends with its exit code, and with that of a signal', async () => {
      expect((await client.ssh('exit 42')).code).toBe(42)
      expect((await client.ssh('kill -KILL $$')).code).toBe(255)
      expect((await client.ssh('no-such-program')).code).toBe(127)
    })

    it('keeps input, output and error apart, every byte of them', async () => {
      const input = randomBytes(3_000_001)
      const end = await client.ssh('tee /dev/stderr | cat; exit 3', input)
      expect([end.code, end.stdout.equals(input)]).toEqual([3, true])
      expect((await client.ssh('cat >/dev/null; echo to stdout; echo to stderr >&2', input)).stderr).toBe('to stderr\n')
    })

    it('has the environment of the job, the shell of root, and what a client may send', async () => {
      const words = 'echo "$GREETING|$TZ|$SECRET|$SHELL|$HOME"; [[ -t 0 ]] || echo {1..3}'
      const { stdout, stderr } = await runProgram('ssh', client.args('-o', 'SetEnv=TZ=UTC-3 SECRET=x LC_ALL=en_US.UTF-8', target, words))
      expect([stdout.toString(), stderr]).toEqual(['good day|UTC-3||/bin/bash|/root\n1 2 3\n', ''])
    })

    it('may be long', async () => {
      const counting = (length: number) => `printf %s ${'x'.repeat(length)} | wc -c`
      expect(await ok(counting(34_000))).toBe('34000\n')
      expect(await ok(`bash -c "$(cat)"`, counting(100_000))).toBe('100000\n')
      const tooLong = await client.ssh(counting(36_000))
      expect([tooLong.code, tooLong.stderr]).toEqual([255, expect.stringContaining('give longer commands to a shell as standard input')])
    })

    it('may come as a script by standard input', async () => {
      const { code, stdout, stderr } = await runProgram('ssh', client.args(target), 'echo $((6 * 7))\nshopt -q login_shell && exit 3\n')
      expect([code, stdout.toString(), stderr]).toEqual([3, '42\n', ''])
    })

    it('sees and changes the files that exec of the API has', async () => {
      await ok('cat > /root/by-ssh', 'written by ssh')
      expect(await api.exec(job, 'cat /root/by-ssh; rm /root/by-ssh')).toBe('written by ssh')
    })
  })

  it('a shell has a terminal, its size and its keys', async () => {
    await using shell = ground.terminal()
    await shell.sees(/# $/)
    // The quotes inside keep the echo of what is typed apart from what is printed.
    shell.say(`echo si''ze=$(stty size) $TERM $GREETING $0\n`)
    await shell.sees(/size=31 97 xterm-256color good day \S*bash/)
    shell.say(`trap 'echo now''=$(stty size)' WINCH; echo set''\n`)
    await shell.sees(/\rset\r/)
    shell.resize(45, 120)
    await shell.sees(/now=45 120/)
    shell.say(`sh -c 'echo sl''eeps; exec sleep 60'\n`)
    await shell.sees(/sleeps\r\n/)
    shell.say('\u0003')
    shell.say(`echo inter''rupted $?\n`)
    await shell.sees(/interrupted 130/)
    shell.say('exit 5\n')
    expect(await shell.ended).toBe(5)
  })

  it('a command gets a terminal when it is asked for', async () => {
    await using shell = new Terminal('ssh', client.args('-t', target, 'tty; read line; echo "got $line"; exit 4'))
    await shell.sees(/\/dev\/pts\/\d/)
    shell.say('words\n')
    await shell.sees(/got words/)
    expect(await shell.ended).toBe(4)
  })

  describe('files', () => {
    const here = (name: string) => join(folder, name)
    const localDigest = (dir: string) => execFileSync('sh', ['-c', digestTree(dir)], { encoding: 'utf8' })
    const copied = async (file: string, args: readonly string[], input?: string) => {
      const { code, stderr } = await runProgram(file, args, input)
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    }

    beforeAll(() => {
      makeTree(here('tree'), { links: false })
      makeTree(here('tree with links'), { links: true })
    })

    it('by scp, there and back', async () => {
      const options = [...client.options, '-P', String(client.access.ssh_port), '-rpq']
      await copied('scp', [...options, here('tree'), `${target}:/srv/scp`])
      expect(await ok(digestTree('/srv/scp'))).toBe(localDigest(here('tree')))
      await copied('scp', [...options, `${target}:/srv/scp`, here('back by scp')])
      expect(localDigest(here('back by scp'))).toBe(localDigest(here('tree')))
    })

    it('by sftp, there and back', async () => {
      const run = (batch: string) => copied('sftp', [...client.options, '-P', String(client.access.ssh_port), '-q', '-b', '-', target], batch)
      await run(`put -Rp "${here('tree')}" /srv/sftp\nrename /srv/sftp/large /srv/sftp/renamed\nchmod 640 /srv/sftp/renamed\nsymlink renamed /srv/sftp/link\n`)
      expect(await ok('cd /srv/sftp; stat -c %a%s renamed; readlink link; rm link; mv renamed large; chmod 644 large')).toBe('6406000001\nrenamed\n')
      expect(await ok(digestTree('/srv/sftp'))).toBe(localDigest(here('tree')))
      await run(`get -Rp /srv/sftp "${here('back by sftp')}"\nrm /srv/sftp/large\nrmdir "/srv/sftp/empty folder"\ndf /srv\n`)
      expect(localDigest(here('back by sftp'))).toBe(localDigest(here('tree')))
    })

    it('by rsync, there and back, and only what changed', async () => {
      // Images from before it was part of them.
      await ok('command -v rsync >/dev/null || { apt-get -qq update && apt-get -qq install -y rsync; } >/dev/null 2>&1')
      const shell = ['-e', ['ssh', ...client.args()].map((word) => `'${word}'`).join(' ')]
      const source = `${here('tree with links')}/`
      await copied('rsync', ['-a', ...shell, source, `${target}:/srv/rsync`])
      expect(await ok(digestTree('/srv/rsync'))).toBe(localDigest(source))
      await ok('rm /srv/rsync/run; touch /srv/rsync/more')
      const again = await runProgram('rsync', ['-ai', '--delete', ...shell, source, `${target}:/srv/rsync`])
      expect(again.stdout.toString().match(/\S+$/gm)).toEqual(['more', './', 'run'])
      await copied('rsync', ['-a', ...shell, `${target}:/srv/rsync/`, here('back by rsync')])
      expect(localDigest(here('back by rsync'))).toBe(localDigest(source))
    })
  })

  describe('forwards', () => {
    let server: Terminal

    beforeAll(async () => {
      server = ground.terminal()
      await server.sees(/# $/)
      server.say(`exec ${httpServerLine} 8080\n`)
      await server.sees(/\r8080\r/)
    })
    afterAll(() => server?.[Symbol.asyncDispose]())

    it('a port of the sandbox to this machine (-L)', async () => {
      const socket = join(folder, 'forward')
      await using forward = new Terminal('ssh', client.args('-L', `${socket}:127.0.0.1:8080`, '-L', `${socket}2:localhost:81`, target, 'echo up; cat'))
      await forward.sees(/up/)
      const answers = await Promise.all(Array.from({ length: 20 }, () => runProgram('curl', ['-sS', '--unix-socket', socket, 'http://localhost/'])))
      expect(answers.map(({ stdout }) => stdout.toString())).toEqual(new Array(20).fill('from the sandbox\n'))
      // Nothing listens there.
      expect((await runProgram('curl', ['-sS', '--unix-socket', `${socket}2`, 'http://localhost/'])).code).not.toBe(0)
    })

    it('none from the sandbox to this machine (-R), nor through it to others', async () => {
      const reverse = await runProgram('ssh', client.args('-o', 'ExitOnForwardFailure=yes', '-R', '0:127.0.0.1:1', target, 'true'))
      expect([reverse.code, reverse.stderr]).toEqual([255, expect.stringContaining('remote port forwarding failed')])
      const through = await runProgram('ssh', ['-o', 'LogLevel=INFO', ...client.args('-W', '192.0.2.1:80', target)])
      expect([through.code, through.stderr]).toEqual([255, expect.stringContaining('only ports of the sandbox itself can be reached')])
    })

    it('what editors that work on another machine do: a script by standard input, a server it starts, and SOCKS to it (-D)', async () => {
      const port = await freePort()
      await using editor = new Terminal('sh', [
        '-c',
        '{ printf %s "$0"; cat; } | ssh "$@"',
        editorScript,
        ...client.args('-T', '-D', String(port), target, 'sh'),
      ])
      const [, remotePort] = await editor.sees(/listeningOn=(\d+)==/)
      expect(editor.text).toMatch(/platform=Linux arch=x86_64 bits=64 libc=glibc \d/)
      const answers = await Promise.all(
        Array.from({ length: 40 }, () => runProgram('curl', ['-sS', '--proxy', `socks5h://127.0.0.1:${port}`, `http://localhost:${remotePort}/`])),
      )
      expect(answers.map(({ stdout }) => stdout.toString())).toEqual(new Array(40).fill('from the sandbox\n'))
    })
  })

  it('one connection carries many sessions', async () => {
    const control = join(folder, 'control')
    await using master = new Terminal('ssh', client.args('-M', '-S', control, target, 'echo up; cat'))
    await master.sees(/up/)
    const over = (...words: string[]) => runProgram('ssh', ['-F', '/dev/null', '-S', control, target, ...words])
    const ends = await Promise.all(Array.from({ length: 30 }, (_, index) => over(`echo ${index}; exit ${index}`)))
    expect(ends.map(({ code, stdout }) => `${code} ${stdout}`)).toEqual(ends.map((_, index) => `${index} ${index}\n`))
    expect((await runProgram('ssh', ['-S', control, '-O', 'exit', target])).code).toBe(0)
  })

  describe('keys', () => {
    it('of others are refused', async () => {
      const stranger = join(folder, 'stranger')
      execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', stranger])
      const words = client.args(target, 'true').map((word) => (word === client.keyFile ? stranger : word))
      const refused = await runProgram('ssh', words)
      expect([refused.code, refused.stderr]).toEqual([255, expect.stringContaining('Permission denied (publickey)')])
      // A neighbour's is no better.
      const neighbour = await openSshClient(api, await api.open({ name: 'neighbour' }), folder)
      expect([neighbour.access.ssh_port, (await neighbour.ssh('true')).code]).toEqual([firstPort + 1, 0])
      expect(
        (
          await runProgram(
            'ssh',
            client.args(target, 'true').map((word) => (word === client.keyFile ? neighbour.keyFile : word)),
          )
        ).code,
      ).toBe(255)
      await api.stop('neighbour')
      const user = await runProgram('ssh', client.args(`daemon@${client.access.ssh_host}`, 'true'))
      expect([user.code, user.stderr]).toEqual([255, expect.stringContaining('Permission denied (publickey)')])
    })

    it('of an account open every sandbox of it, by name on the shared port and on its own', async () => {
      const own = join(folder, 'own')
      execFileSync('ssh-keygen', ['-q', '-t', 'ecdsa', '-N', '', '-C', 'laptop', '-f', own])
      const { id } = await api.call<{ id: string }>('POST', 'mags-ssh-keys', { public_key: readFileSync(`${own}.pub`, 'utf8') })
      const shared = /"sshPort":(\d+)/.exec(await daemon.log())?.[1] ?? ''
      const by = (port: number | string, user: string) =>
        runProgram('ssh', [...client.options.map((word) => (word === client.keyFile ? own : word)), '-p', String(port), `${user}@127.0.0.1`, 'hostname'])
      const name = await ok('hostname')
      for (const user of ['web', job, job.slice(0, 12)]) expect([user, (await by(shared, user)).stdout.toString()]).toEqual([user, name])
      expect((await by(client.access.ssh_port, 'root')).stdout.toString()).toBe(name)
      expect((await by(shared, 'no-such-job')).code).toBe(255)
      await api.call('DELETE', `mags-ssh-keys/${id}`)
      expect((await by(shared, 'web')).code).toBe(255)
    })
  })

  describe('access', () => {
    it('is refused to what does not stay, and to what is over', async () => {
      const passing = await api.submit({ script: 'sleep 60', name: 'passing' })
      await untilStatus(api.mags, passing, ({ status }) => status === 'running')
      const ask = () => api.call('POST', `mags-jobs/${passing}/access`, { port: 22 })
      await expect(ask()).rejects.toMatchObject({ status: 400, body: { error: 'job passing is not persistent: access needs a job submitted with persistent' } })
      await api.stop(passing)
      await expect(ask()).rejects.toMatchObject({ status: 400, body: { error: expect.stringContaining('and it is over (status: stopped)') } })
    })

    it('ends with the job: shells are told, and nothing answers there any more', async () => {
      const other = await openSshClient(api, await api.open({ name: 'other' }), folder)
      await using shell = new Terminal('ssh', other.args(target))
      await shell.sees(/# $/)
      await api.call('POST', 'mags-jobs/other/stop')
      expect(await shell.ended).toBe(255)
      expect(shell.text).toMatch(/sandbox of 'other' is gone|gateway is closing/)
      const late = await other.ssh('true')
      expect([late.code, late.stderr]).toEqual([255, expect.stringContaining('Connection refused')])
      await expect(api.call('POST', 'mags-jobs/other/access', { port: 22 })).rejects.toMatchObject({
        body: { error: expect.stringMatching(/other is over \(status: stopped\): access needs one that runs or sleeps/) },
      })
    })

    it('is the same for the next job on the workspace', async () => {
      const first = await openSshClient(api, await api.open({ workspace_id: 'kept' }), folder)
      expect((await first.ssh('echo kept > /root/file')).code).toBe(0)
      await api.stop('kept')
      const second = await api.open({ workspace_id: 'kept' })
      // Without asking again.
      expect((await first.ssh('cat /root/file')).stdout.toString()).toBe('kept\n')
      expect((await openSshClient(api, second, folder)).access).toEqual(first.access)
      await api.stop('kept')
    })
  })

  describe('mags ssh', () => {
    const home = () => ({ MAGS_API_URL: daemon.url, MAGS_API_TOKEN: daemon.token, HOME: join(folder, 'home') })

    it('starts a sandbox that is not there yet, runs a command and ends with its exit code', async () => {
      mkdirSync(join(folder, 'home'))
      const first = await runMags(['ssh', 'fresh', 'echo', '"$PWD"; exit 7'], { env: home() })
      expect(first).toMatchObject({ code: 7, stdout: '/root\n', stderr: "mags: no sandbox 'fresh' runs: starting one on the workspace 'fresh'\n" })
      expect(await runMags(['ssh', 'fresh', 'cat'], { env: home(), input: 'words' })).toMatchObject({ code: 0, stdout: 'words', stderr: '' })
      expect((await api.mags.status('fresh')).status).toBe('running')
    })

    it('opens a shell', async () => {
      await using shell = new Terminal(process.execPath, [join(import.meta.dirname, '../../packages/cli/dist/main.js'), 'ssh', 'fresh'], home())
      await shell.sees(/# $/)
      shell.say('exit 6\n')
      expect(await shell.ended).toBe(6)
    })

    it('prints what ssh needs, as a command and for its configuration', async () => {
      const { stdout } = await runMags(['ssh', '--print', 'fresh'], { env: home() })
      const [line = ''] = stdout.split('\n')
      expect((await runProgram('sh', ['-c', `${line.replace(/^# /, '')} 'echo by the line'`])).stdout.toString()).toBe('by the line\n')
      writeFileSync(join(folder, 'config'), stdout)
      const { stdout: by } = await runProgram('ssh', ['-F', join(folder, 'config'), 'mags-fresh', 'echo by the block'])
      expect(by.toString()).toBe('by the block\n')
      const { identity_file: file } = JSON.parse((await runMags(['ssh', '--json', 'fresh'], { env: home() })).stdout) as { identity_file: string }
      expect(statSync(file).mode & 0o777).toBe(0o600)
      await api.stop('fresh')
    })
  })
})
