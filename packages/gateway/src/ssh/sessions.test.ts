import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { freePort, openSshWorld, outer, runProcess, type SshWorld } from './testing/ssh-world.ts'

let world: SshWorld
const large = randomBytes(50 * 1024 * 1024)
beforeAll(async () => {
  world = await openSshWorld()
})
afterAll(() => world[Symbol.asyncDispose]())

const at = 'root@127.0.0.1'

const terminalTalk = fileURLToPath(new URL('testing/talk-on-terminal.py', import.meta.url))

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/** Runs `ssh`, hands its output so far to `say` at every piece, and returns all of it. */
async function converse(args: readonly string[], say: (so: string, write: (text: string) => void, kill: (signal: NodeJS.Signals) => void) => void) {
  const child = spawn('ssh', world.sshArgs(...args), { stdio: ['pipe', 'pipe', 'pipe'] })
  let text = ''
  const hear = (bytes: Buffer) => {
    text += bytes.toString()
    say(
      text,
      (words) => child.stdin.write(words),
      (signal) => child.kill(signal),
    )
  }
  child.stdout.on('data', hear)
  child.stderr.on('data', hear)
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  return { text, code }
}

/** The first line of what `ssh` prints and the code it ends with. */
async function firstLine(args: readonly string[], input: 'open' | 'ended') {
  const child = spawn('bash', ['-c', '"$@" | head -1; echo code $PIPESTATUS', 'bash', 'ssh', ...args], { stdio: ['pipe', 'pipe', 'ignore'] })
  if (input === 'ended') child.stdin.end()
  let text = ''
  for await (const bytes of child.stdout) text += String(bytes)
  child.stdin.destroy()
  return text
}

describe('commands', () => {
  it('give output, errors and exit code apart', async () => {
    const outcome = await world.ssh([at, 'echo out; echo err >&2; exit 7'])
    expect(outcome).toMatchObject({ code: 7, stderr: 'err\n' })
    expect(outcome.stdout.toString()).toBe('out\n')
  })

  it('go through /bin/sh with what quoting the client did', async () => {
    const outcome = await world.ssh([at, 'printf "%s|" "a b" $((1+1)) "ü"'])
    expect(outcome.stdout.toString()).toBe('a b|2|ü|')
  })

  it('carry 50 MB in and out unchanged', async () => {
    const outcome = await world.ssh([at, 'cat'], large)
    expect(outcome.code).toBe(0)
    expect(outcome.stdout.equals(large)).toBe(true)
  }, 60_000)

  it('carry standard output and error interleaved beyond the window of the channel', async () => {
    const script = 'i=0; while [ $i -lt 60 ]; do head -c 100000 /dev/zero | tr "\\0" o; head -c 100000 /dev/zero | tr "\\0" e >&2; i=$((i+1)); done'
    const outcome = await world.ssh([at, script])
    expect(outcome.code).toBe(0)
    expect(outcome.stdout.equals(Buffer.alloc(6_000_000, 'o'))).toBe(true)
    expect(outcome.stderr === 'e'.repeat(6_000_000)).toBe(true)
  }, 60_000)

  it('see the end of their input', async () => {
    expect((await world.ssh([at, 'wc -c'], 'abc')).stdout.toString().trim()).toBe('3')
    expect((await world.ssh(['-n', at, 'cat; echo end'])).stdout.toString()).toBe('end\n')
  })

  it('that are killed by a signal end as with sshd', async () => {
    // OpenSSH's client ends with 255 when it hears of a signal instead of a status.
    expect((await world.ssh([at, 'kill -TERM $$; sleep 5'])).code).toBe(255)
  })

  it('may close their input early without breaking the connection', async () => {
    const outcome = await world.ssh([at, 'exec <&-; echo done'], large.subarray(0, 5_000_000))
    expect(outcome).toMatchObject({ code: 0 })
    expect(outcome.stdout.toString()).toBe('done\n')
  })

  it('stay open for what they left behind, until that ends too', async () => {
    const outcome = await world.ssh([at, '(sleep 0.5; echo late) & echo early'])
    expect(outcome.stdout.toString()).toBe('early\nlate\n')
  })

  it('get the settings of a list, and no others', async () => {
    const args = ['-o', 'SetEnv=LC_TEST=yes LD_PRELOAD=no', '-o', 'SendEnv=NOTHING', at, 'echo "$LC_TEST|$LD_PRELOAD|$(test -n "$SSH_CONNECTION" && echo set)"']
    expect((await world.ssh(args)).stdout.toString()).toBe('yes||set\n')
    const last = world.directory.programs.at(-1)
    expect(last?.environment).not.toHaveProperty('LD_PRELOAD')
  })

  describe.each(['open', 'ended'] as const)('whose output nobody reads, with input %s', (input) => {
    it.each([
      // Codes of OpenSSH's client: 255 when it hears of a signal.
      ['endless output', 'yes', 'y', 255],
      ['output in pieces', 'while :; do echo x; sleep 0.1; done', 'x', 255],
      ['a runtime that ignores SIGPIPE', 'exec python3 -uc "while True: print(1)"', '1', 255],
      ['something left behind', 'yes & exit 3', 'y', 3],
      ['standard error that goes on', 'yes >&2 & head -c 1000000 /dev/zero | tr "\\0" "\\n"; sleep 0.3; kill $!; exit 4', '', 4],
    ])('end: %s', async (_what, command, line, code) => {
      expect(await firstLine(world.sshArgs(at, command), input)).toBe(`${line}\ncode ${code}\n`)
      await world.directory.quiet()
    })

    it('go on when they write nothing', async () => {
      expect(await firstLine(world.sshArgs(at, 'head -c 200000 /dev/zero | tr "\\0" "\\n"; sleep 1; exit 6'), input)).toBe('\ncode 6\n')
    })

    it('end on a terminal', async () => {
      expect(await firstLine(world.sshArgs('-tt', at, 'yes'), input)).toBe('y\r\ncode 255\n')
    })
  })

  it('are hung up when the client goes', async () => {
    await mkdir(join(world.home, 'hung'))
    const script = `trap 'echo hup > hung/hup; exit' HUP; touch hung/started; echo ready; while :; do sleep 0.05; done`
    const { text } = await converse([at, script], (so, _write, kill) => {
      if (so.includes('ready')) kill('SIGKILL')
    })
    expect(text).toBe('ready\n')
    await world.directory.quiet()
    expect(await readFile(join(world.home, 'hung/hup'), 'utf8')).toBe('hup\n')
  })

  it('that flood a client who reads nothing are held back', async () => {
    const child = spawn('ssh', world.sshArgs(at, 'head -c 200000000 /dev/zero'), { stdio: ['ignore', 'pipe', 'ignore'] })
    const before = world.directory.takenBytes
    // Another connection goes on meanwhile.
    for (let i = 0; i < 3; i++) expect((await world.ssh([at, 'echo alive'])).stdout.toString()).toBe('alive\n')
    // The windows, the pipes and the socket's buffers, and not the rest.
    expect(world.directory.takenBytes - before).toBeLessThan(20_000_000)
    let bytes = 0
    for await (const part of child.stdout) bytes += (part as Buffer).length
    expect(bytes).toBe(200_000_000)
  }, 60_000)
})

describe('shells', () => {
  it('are login shells that end as told', async () => {
    const outcome = await world.ssh(['-T', at], 'echo "$0"; exit 3\n')
    expect(outcome.code).toBe(3)
    expect(outcome.stdout.toString()).toContain('sh')
  })

  it('have a terminal with name and size, and follow its changes', async () => {
    const outcome = await world.run('python3', [terminalTalk, 'ssh', ...world.sshArgs('-tt', at)])
    const text = outcome.stdout.toString()
    expect(outcome.stderr).toBe('')
    expect(text).toContain('size=31 97 term=xterm-256color tty=yes')
    expect(text).toContain('later=45 120')
    expect(text).toContain('interrupted')
    expect(text).toContain('code=5')
  })

  it('end with the connection', async () => {
    const { text } = await converse(['-tt', at], (so, write, kill) => {
      if (so.includes('pid-of-it=')) kill('SIGKILL')
      else if (!so.includes('echo pid')) write('echo pid-of-it""=$$\n')
    })
    const pid = Number(/pid-of-it=(\d+)/.exec(text)?.[1])
    expect(pid).toBeGreaterThan(1)
    await world.directory.quiet()
    // The kernel hangs up what is left on the terminal.
    await expect.poll(() => isAlive(pid), { timeout: 10_000 }).toBe(false)
  })
})

describe('file transfers', () => {
  it('compare equal by sftp, scp and rsync', async () => {
    const local = join(world.folder, 'local')
    await mkdir(join(local, 'deep/er'), { recursive: true })
    const files = { 'a.bin': large.subarray(0, 8_000_000), 'deep/er/b.txt': Buffer.from('b\n'), empty: Buffer.alloc(0) }
    for (const [name, bytes] of Object.entries(files)) await writeFile(join(local, name), bytes)
    const keyArgs = [...world.options, '-i', world.keys.webapp.file]

    const scp = async (...args: string[]) =>
      expect(await world.run('scp', [...keyArgs, '-P', String(world.ports.webapp), '-r', ...args])).toMatchObject({ code: 0 })
    await scp(local, `${at}:by-scp`)
    await scp(`${at}:by-scp`, join(world.folder, 'back-scp'))

    const batch = join(world.folder, 'batch-file')
    await writeFile(batch, `put -r ${local} by-sftp\nget -r by-sftp ${join(world.folder, 'back-sftp')}\n`)
    expect(await world.run('sftp', [...keyArgs, '-P', String(world.ports.webapp), '-b', batch, at])).toMatchObject({ code: 0 })

    const shell = ['ssh', ...world.sshArgs()].join(' ')
    const rsync = async (...args: string[]) => expect(await world.run('rsync', ['-a', '-e', shell, ...args])).toMatchObject({ code: 0 })
    await rsync(`${local}/`, `${at}:by-rsync/`)
    await rsync(`${at}:by-rsync/`, join(world.folder, 'back-rsync'))

    for (const back of ['back-scp', 'back-sftp', 'back-rsync']) {
      for (const [name, bytes] of Object.entries(files)) expect((await readFile(join(world.folder, back, name))).equals(bytes), `${back}/${name}`).toBe(true)
    }
    expect(await readdir(world.home)).toEqual(expect.arrayContaining(['by-rsync', 'by-scp', 'by-sftp']))
  }, 60_000)

  it('say nothing of their own on standard error', async () => {
    const outcome = await world.run('sftp', [...world.options, '-i', world.keys.webapp.file, '-P', String(world.ports.webapp), '-b', '/dev/null', at])
    expect(outcome).toMatchObject({ code: 0, stderr: '' })
  })
})

describe('forwarding', () => {
  it('carries a local port to one of the sandbox', async () => {
    const server = createServer((request, response) => {
      request.pipe(response)
    })
    const inside = await new Promise<number>((resolve) => server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port)))
    const outside = await freePort()
    try {
      const { text } = await converse(['-L', `127.0.0.1:${outside}:localhost:${inside}`, at, 'echo up; read line; echo "$line"'], (so, write) => {
        if (so !== 'up\n') return
        const body = join(world.folder, 'body')
        void writeFile(body, large.subarray(0, 3_000_000))
          .then(() => runProcess('curl', ['-sS', '--data-binary', `@${body}`, `http://127.0.0.1:${outside}/`]))
          .then((answer) => write(answer.stdout.equals(large.subarray(0, 3_000_000)) ? 'same\n' : `differs ${answer.stderr}\n`))
      })
      expect(text).toBe('up\nsame\n')
    } finally {
      server.close()
    }
  }, 60_000)

  it('to anywhere else is refused in words', async () => {
    const forward = (target: string) => world.run('ssh', ['-o', 'LogLevel=INFO', ...world.sshArgs('-W', target, at)])
    const elsewhere = await forward('10.0.0.1:80')
    expect(elsewhere.code).not.toBe(0)
    expect(elsewhere.stderr).toContain('only ports of the sandbox itself can be reached (localhost)')
    const nobody = await forward(`localhost:${await freePort()}`)
    expect(nobody.stderr).toMatch(/nothing listens on port \d+ in the sandbox/)
  })

  it('back from the sandbox is refused, and the session goes on', async () => {
    const outcome = await world.ssh(['-R', '0:localhost:22', '-A', '-X', at, 'echo goes on'])
    expect(outcome).toMatchObject({ code: 0 })
    expect(outcome.stdout.toString()).toBe('goes on\n')
    expect((await world.ssh(['-o', 'ExitOnForwardFailure=yes', '-R', '12345:localhost:22', at, 'true'])).stderr).toContain('remote port forwarding failed')
  })
})

describe('one connection for several sessions', () => {
  it('runs them side by side, and keeps the job awake only while one is open', async () => {
    const control = join(world.folder, 'control')
    const master = spawn('ssh', world.sshArgs('-M', '-N', '-S', control, at), { stdio: 'ignore' })
    const through = (...args: string[]) => runProcess('ssh', ['-F', '/dev/null', '-S', control, '-o', 'BatchMode=yes', at, ...args])
    try {
      await expect.poll(async () => (await runProcess('ssh', ['-F', '/dev/null', '-S', control, '-O', 'check', at])).code, { timeout: 10_000 }).toBe(0)
      const outcomes = await Promise.all([1, 2, 3, 4, 5].map((code) => through(`sleep 0.2; echo ${code}; exit ${code}`)))
      expect(outcomes.map((outcome) => [outcome.code, outcome.stdout.toString()])).toEqual([1, 2, 3, 4, 5].map((code) => [code, `${code}\n`]))
      expect(await firstLine(['-F', '/dev/null', '-S', control, '-o', 'BatchMode=yes', at, 'yes'], 'open')).toBe('y\ncode 255\n')
      await world.directory.quiet()
      const opened = world.directory.events.length
      expect((await through('echo again')).stdout.toString()).toBe('again\n')
      await world.directory.quiet()
      expect(world.directory.events.slice(opened)).toEqual([`open ${outer}`, `close ${outer}`])
    } finally {
      master.kill()
    }
  }, 60_000)
})
