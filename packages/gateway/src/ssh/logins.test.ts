import { chmod, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { generateSshKey, MagsError } from '@mags/protocol'
import ssh2 from 'ssh2'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadHostKey } from './host-key.ts'
import { freePort, openSshWorld, outer, runProcess, type SshWorld } from './testing/ssh-world.ts'

let world: SshWorld
beforeAll(async () => {
  world = await openSshWorld({ freeFailures: 1_000 })
})
afterAll(() => world[Symbol.asyncDispose]())

const at = 'root@127.0.0.1'

function login(options: { key?: string; port: number; user?: string; more?: readonly string[]; command?: string }) {
  const key = options.key === undefined ? [] : ['-i', options.key]
  const args = [
    ...(options.more ?? []),
    ...world.options,
    ...key,
    '-p',
    String(options.port),
    `${options.user ?? 'root'}@127.0.0.1`,
    options.command ?? 'echo in',
  ]
  return runProcess('ssh', args)
}

describe('who may log in', () => {
  it('each job on its own port with its own key', async () => {
    await writeFile(join(world.folder, 'webapp/name'), 'webapp')
    await writeFile(join(world.folder, 'batch/name'), 'batch')
    for (const name of ['webapp', 'batch'] as const) {
      const outcome = await login({ key: world.keys[name].file, port: world.ports[name], command: 'cat name' })
      expect(outcome.stdout.toString()).toBe(name)
    }
    expect(await login({ key: world.keys.batch.file, port: world.ports.webapp })).toMatchObject({
      code: 255,
      stderr: expect.stringContaining('Permission denied (publickey)'),
    })
  })

  it('nobody with another user name, another key, no key or a password, and nothing is woken for them', async () => {
    const opened = () => world.directory.events.filter((event) => event.startsWith('open')).length
    const before = opened()
    const port = world.ports.webapp
    const refused = { code: 255, stderr: expect.stringContaining('Permission denied (publickey)') }
    expect(await login({ key: world.keys.webapp.file, port, user: 'admin' })).toMatchObject(refused)
    expect(await login({ key: world.keys.stranger.file, port })).toMatchObject(refused)
    expect(await login({ port, more: ['-o', 'PubkeyAuthentication=no'] })).toMatchObject(refused)
    expect(
      await login({ port, more: ['-o', 'PreferredAuthentications=password,keyboard-interactive', '-o', 'BatchMode=no', '-o', 'NumberOfPasswordPrompts=1'] }),
    ).toMatchObject(refused)
    expect(opened()).toBe(before)
  })

  it('a copied public key with another private key does not', async () => {
    const { webapp, stranger } = world.keys
    const outcome = await new Promise<Error | undefined>((resolve) => {
      const client = new ssh2.Client()
      const liar = ssh2.utils.parseKey(stranger.privateKey)
      if (liar instanceof Error) throw liar
      const honest = ssh2.utils.parseKey(webapp.privateKey)
      if (honest instanceof Error) throw honest
      client.on('ready', () => resolve(undefined)).on('error', resolve)
      const agent = {
        getIdentities: (done: (error: Error | undefined, keys: unknown[]) => void) => done(undefined, [honest]),
        sign: (_key: unknown, data: Buffer, ...rest: unknown[]) =>
          (rest.at(-1) as (error: Error | undefined, signature?: Buffer) => void)(undefined, liar.sign(data) as unknown as Buffer),
      }
      Object.setPrototypeOf(agent, ssh2.BaseAgent.prototype)
      client.connect({ host: '127.0.0.1', port: world.ports.webapp, username: 'root', agent: agent as never, agentForward: false })
    })
    expect(outcome?.message).toMatch(/authentication methods failed/)
  })

  it('on the shared port whom the user name means, with a key that is taken there', async () => {
    const port = world.sharedPort()
    expect((await login({ key: world.keys.batch.file, port, user: 'batch', command: 'cat name' })).stdout.toString()).toBe('batch')
    expect((await login({ key: world.keys.batch.file, port, user: 'webapp' })).code).toBe(255)
    expect((await login({ key: world.keys.batch.file, port, user: 'nobody' })).code).toBe(255)
  })

  it('RSA and ECDSA keys of an account too, but no short ones', async () => {
    for (const [kind, bits, fits] of [
      ['rsa', '2048', true],
      ['ecdsa', '256', true],
      ['rsa', '1024', false],
    ] as const) {
      const file = join(world.folder, `own-${kind}-${bits}`)
      expect(await runProcess('ssh-keygen', ['-q', '-t', kind, '-b', bits, '-N', '', '-f', file])).toMatchObject({ code: 0 })
      const publicKey = (await readFile(`${file}.pub`, 'utf8')).split(' ').slice(0, 2).join(' ')
      world.directory.add(`own-${kind}-${bits}`, { name: `own-${kind}-${bits}`, folder: world.folder, keys: [publicKey] })
      expect(
        (await login({ key: file, port: world.sharedPort(), user: `own-${kind}-${bits}`, more: ['-o', 'RequiredRSASize=1024'] })).code,
        `${kind} ${bits}`,
      ).toBe(fits ? 0 : 255)
    }
  })

  it('not after too many tries on one connection', async () => {
    const keys = await Promise.all(
      Array.from({ length: 7 }, async (_, index) => {
        const file = join(world.folder, `try-${index}`)
        await writeFile(file, (await generateSshKey('')).privateKey, { mode: 0o600 })
        return ['-i', file]
      }),
    )
    const outcome = await login({ port: world.ports.webapp, more: keys.flat(), key: world.keys.webapp.file })
    expect(outcome).toMatchObject({ code: 255, stderr: expect.stringContaining('Too many authentication failures') })
  })
})

describe('the lease', () => {
  it('is opened after the login and closed when the last program is over', async () => {
    const before = world.directory.events.length
    expect((await login({ key: world.keys.webapp.file, port: world.ports.webapp })).code).toBe(0)
    await world.directory.quiet()
    const events = world.directory.events.slice(before)
    expect(events[0]).toBe('key')
    expect(events.filter((event) => event !== 'key')).toEqual([`open ${outer}`, `close ${outer}`])
    expect(events.lastIndexOf('key')).toBeLessThan(events.indexOf(`open ${outer}`))
  })

  it('that cannot be had is told on standard error with exit code 255', async () => {
    try {
      world.directory.wake = () => Promise.reject(new MagsError('wake_failed', 'its memory is damaged'))
      const key = world.keys.webapp.file
      expect(await login({ key, port: world.ports.webapp })).toMatchObject({ code: 255, stderr: "mags: 'webapp' could not be woken: its memory is damaged\n" })
      world.directory.wake = () => Promise.reject(new MagsError('job_not_running', 'job x is over; start a new one'))
      expect(await login({ key, port: world.ports.webapp })).toMatchObject({ code: 255, stderr: 'mags: job x is over; start a new one\n' })
      world.directory.wake = () => Promise.reject(new Error('secret detail'))
      const outcome = await login({ key, port: world.ports.webapp })
      expect(outcome.code).toBe(255)
      expect(outcome.stderr).toContain("'webapp' cannot be reached")
      expect(outcome.stderr).not.toContain('secret')
    } finally {
      world.directory.wake = async () => undefined
    }
  })

  it('that takes long is told to a person, and to no program', async () => {
    try {
      world.directory.wake = () => new Promise((resolve) => setTimeout(resolve, 1_300))
      const key = world.keys.webapp.file
      const [shell, exec] = await Promise.all([
        runProcess('ssh', [...world.sshArgs('-tt', at)], 'exit\n'),
        login({ key, port: world.ports.webapp, command: 'echo quiet' }),
      ])
      expect(shell.stderr).toContain('waking webapp…')
      expect(exec).toMatchObject({ code: 0, stderr: '' })
    } finally {
      world.directory.wake = async () => undefined
    }
  })

  it('is lost with the sandbox: the client is told, and its next connection works', async () => {
    const lost = world.ssh([at, 'trap "" HUP; echo $$ > lost-pid; sleep 20'])
    await expect.poll(() => readFile(join(world.home, 'lost-pid'), 'utf8').catch(() => ''), { timeout: 10_000 }).toMatch(/\d+\n/)
    world.directory.lose(outer)
    const outcome = await lost
    expect(outcome.code).toBe(255)
    expect(outcome.stderr).toContain("the sandbox of 'webapp' is gone")
    expect((await world.ssh([at, 'echo next'])).stdout.toString()).toBe('next\n')
  })
})

describe('the host key', () => {
  it('is private, an OpenSSH key, and the same after a restart', async () => {
    expect((await stat(world.hostKeyFile)).mode & 0o777).toBe(0o600)
    const shown = await runProcess('ssh-keygen', ['-y', '-f', world.hostKeyFile])
    expect(shown.stdout.toString()).toMatch(/^ssh-ed25519 AAAA/)
    await world.ssh([at, 'true'])
    const known = await world.knownHosts()
    await world.restart()
    // A key that changed would be refused.
    expect((await world.ssh([at, 'echo same'])).stdout.toString()).toBe('same\n')
    expect(await world.knownHosts()).toBe(known)
  })

  it('is made once, also when several ask for it', async () => {
    const file = join(world.folder, 'raced-key')
    const keys = await Promise.all(Array.from({ length: 8 }, () => loadHostKey(file)))
    expect(new Set(keys).size).toBe(1)
    expect(await readFile(file, 'utf8')).toBe(keys[0])
  })

  it('that is none is not replaced', async () => {
    const file = join(world.folder, 'no-key')
    await writeFile(file, 'hello')
    await expect(loadHostKey(file)).rejects.toThrow(/no OpenSSH private key/)
    expect(await readFile(file, 'utf8')).toBe('hello')
    await chmod(file, 0o600)
    await rm(file)
  })
})

describe('a restart', () => {
  it('ends what is open, waits for it, and the next connection works', async () => {
    const open = world.ssh([at, 'touch open-one; sleep 30'])
    await expect
      .poll(
        () =>
          stat(join(world.home, 'open-one')).then(
            () => true,
            () => false,
          ),
        { timeout: 10_000 },
      )
      .toBe(true)
    await world.restart()
    expect(world.directory.openLeases).toBe(0)
    expect((await open).code).toBe(255)
    expect((await world.ssh([at, 'echo next'])).stdout.toString()).toBe('next\n')
  })
})

describe('ports', () => {
  it('come and go with their jobs', async () => {
    const port = await freePort()
    world.directory.add('33333333', { name: 'late', folder: world.folder, port, keys: [world.keys.webapp.publicKey] })
    const key = world.keys.webapp.file
    await expect.poll(async () => (await login({ key, port })).code, { timeout: 10_000 }).toBe(0)
    world.directory.remove('33333333')
    await expect.poll(async () => (await login({ key, port })).stderr, { timeout: 10_000 }).toContain('Connection refused')
  })

  it('that are taken are told, and the others work', async () => {
    const taken = createServer()
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
    const { port } = taken.address() as { port: number }
    try {
      world.directory.add('44444444', { name: 'taken', folder: world.folder, port, keys: [] })
      await expect.poll(() => world.gateway.portFailure(port), { timeout: 10_000 }).toContain('EADDRINUSE')
      expect(await world.gateway.portFailure(world.ports.webapp)).toBeUndefined()
      expect([await world.gateway.portIsFree(port), await world.gateway.portIsFree(world.ports.webapp)]).toEqual([false, true])
      expect((await world.ssh([at, 'true'])).code).toBe(0)
    } finally {
      world.directory.remove('44444444')
      await new Promise((resolve) => taken.close(resolve))
    }
    expect(await world.gateway.portIsFree(port)).toBe(true)
    expect(await world.gateway.portIsFree(port)).toBe(true)
  })
})

describe('many', () => {
  it('50 connections at once', async () => {
    const outcomes = await Promise.all(Array.from({ length: 50 }, (_, index) => world.ssh([at, `echo ${index}`])))
    expect(outcomes.map((outcome) => [outcome.code, outcome.stdout.toString()])).toEqual(outcomes.map((_, index) => [0, `${index}\n`]))
    await world.directory.quiet()
  }, 60_000)
})

describe('connections that do not log in', () => {
  it('are ended after the login grace, and only so many are let wait', async () => {
    await using small = await openSshWorld({ loginGraceMs: 4_000, unauthenticatedPerAddress: 2 })
    const hear = async () => {
      const socket = connect(small.ports.webapp, '127.0.0.1')
      let text = ''
      socket.on('data', (bytes) => {
        text += bytes.toString('latin1')
      })
      socket.on('error', () => undefined)
      await new Promise((resolve) => socket.once('close', resolve))
      return text
    }
    const [one, two, three] = await Promise.all([hear(), hear(), hear()])
    expect([one, two, three].filter((text) => text?.startsWith('SSH-2.0-OpenSSH_compatible Mags\r\n'))).toHaveLength(2)
    expect([one, two, three].filter((text) => text?.startsWith('Too many connections'))).toHaveLength(1)
    // All places are free again.
    expect((await small.ssh([at, 'echo in'])).stdout.toString()).toBe('in\n')
  })

  it('wait longer the more they failed, and the right key does not', async () => {
    await using slow = await openSshWorld({ freeFailures: 0, failureDelayMs: 400, failureDelayMaxMs: 60_000 })
    let answered = 0
    const wrong = Array.from({ length: 8 }, () =>
      runProcess('ssh', [...slow.options, '-i', slow.keys.stranger.file, '-p', String(slow.ports.webapp), at]).then(() => {
        answered++
      }),
    )
    // Whichever comes first: eight failures double the delay to 51 s for the last; the right key is let in meanwhile.
    await Promise.race(wrong)
    expect((await slow.ssh([at, 'echo in'])).stdout.toString()).toBe('in\n')
    expect(answered).toBeLessThan(8)
    await slow[Symbol.asyncDispose]()
    await Promise.all(wrong)
  })
})
