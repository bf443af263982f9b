import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ExecRequest, ImageOrigin, SandboxLease, SandboxSpec } from '@mags/protocol'
import { MagsError } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { FakeHost } from '../../testing/fake-host.ts'
import type { FakeSandbox } from '../../testing/fake-sandbox.ts'
import { type EntryOf, tarOf } from '../testing/tar-of.ts'
import { buildDockerfile } from './build-dockerfile.ts'
import { ContextArchive } from './context-archive.ts'

/** A fake host that notes what is run in its sandboxes. */
class NotingHost extends FakeHost {
  readonly ran: { readonly sandbox: string; readonly request: ExecRequest }[] = []
  readonly made: ImageOrigin[] = []

  constructor() {
    super({ capabilities: {} })
    this.images.beforeCreate = (_name, origin) => void this.made.push(origin)
  }

  override lease(spec: SandboxSpec, acquireMs = 0, source?: FakeSandbox): SandboxLease {
    const lease = super.lease(spec, acquireMs, source)
    const run: SandboxLease['run'] = async (script, sink) => {
      const sandbox = (await lease.run(script, sink)) as FakeSandbox
      const exec = sandbox.exec.bind(sandbox)
      sandbox.exec = (request, ...rest) => {
        this.ran.push({ sandbox: spec.image, request })
        return exec(request, ...rest)
      }
      return sandbox
    }
    return { ...lease, run }
  }

  /** What RUN ran, without work of ours. */
  get commands(): (readonly string[])[] {
    return this.ran.filter(({ request }) => request.command[3] !== 'sh' && !request.command[2]?.startsWith('cd / ||')).map(({ request }) => request.command)
  }
}

interface Build {
  readonly host?: NotingHost
  readonly buildArgs?: Record<string, string>
  readonly files?: Record<string, EntryOf>
  readonly abort?: AbortSignal
}

async function build(dockerfile: string, { host = new NotingHost(), buildArgs = {}, files = {}, abort = new AbortController().signal }: Build = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'mags-build-'))
  const said: string[] = []
  let output = ''
  try {
    writeFileSync(join(folder, 'context.tar'), await tarOf({ Dockerfile: dockerfile, ...files }))
    const context = await ContextArchive.open(join(folder, 'context.tar'))
    const progress = {
      say: (words: string) => void said.push(words),
      output: async (_source: string, bytes: Uint8Array) => {
        output += Buffer.from(bytes).toString()
      },
    }
    const image = await buildDockerfile({ host, name: 'mine', context, dockerfile: 'Dockerfile', buildArgs, progress, abort })
    return { image, host, said, output }
  } finally {
    rmSync(folder, { recursive: true })
    expect(host.sandboxes.size).toBe(0)
    expect(host.images.all.filter(({ name }) => name.startsWith('mags-build-'))).toEqual([])
  }
}

// biome-ignore-start lint/suspicious/noTemplateCurlyInString: how Dockerfiles have them.
describe('buildDockerfile', () => {
  it('runs instructions one after the other, with what was set before', async () => {
    const { image, host, output } = await build(
      'ARG BASE=alpine\nFROM $BASE\nARG BASE\nARG WHO=nobody\nENV A="x $WHO" B=${NONE:-$BASE}\nENV B=y C=$B\nWORKDIR /w\nWORKDIR sub\nRUN env A\nRUN ["echo", "a b"]\nSHELL ["/bin/bash", "-c"]\nRUN echo two',
      { buildArgs: { WHO: 'me' } },
    )
    expect(image).toMatchObject({ name: 'mine', current: true })
    expect(host.commands).toEqual([
      ['/bin/sh', '-c', 'env A'],
      ['echo', 'a b'],
      ['/bin/bash', '-c', 'echo two'],
    ])
    expect(host.ran.find(({ request }) => request.command[2] === 'env A')?.request).toMatchObject({
      cwd: '/w/sub',
      environment: { A: 'x me', B: 'y', C: 'alpine', WHO: 'me' },
    })
    expect(output).toBe('x me\ntwo\n')
    expect(host.acquired).toMatchObject([{ image: 'alpine', imageDigest: 'sha256:a3', persistent: false }])
    expect(host.made).toMatchObject([
      { kind: 'archive', source: { kind: 'dockerfile', reference: 'Dockerfile' }, environment: { A: 'x me', B: 'y', C: 'alpine' }, workingDirectory: '/w/sub' },
    ])
  })

  it('begins stages as earlier ones are, and leaves out those nobody needs', async () => {
    const { host, said } = await build(
      'FROM alpine AS one\nENV A=1\nRUN write /x 1\nFROM alpine\nRUN exit 9\nFROM one\nRUN env A\nRUN read /x\nENTRYPOINT ["a"]\nCMD ["b"]',
    )
    expect(host.commands.map((command) => command.at(-1))).toEqual(['write /x 1', 'env A', 'read /x'])
    expect(said).not.toContain('stage 2: FROM alpine')
    expect(host.made).toMatchObject([{ source: { command: ['a', 'b'] }, environment: { A: '1' } }])
  })

  it('takes images from a registry for as long as it builds', async () => {
    const { host } = await build('FROM example.org/x:1\nRUN echo x')
    expect(host.made).toMatchObject([{ kind: 'registry', reference: 'example.org/x:1' }, { kind: 'archive' }])
    const refusing = new NotingHost()
    refusing.images.beforeCreate = () => Promise.reject(new MagsError('image_source_unreachable', 'example.org does not answer'))
    await expect(build('FROM example.org/x:1', { host: refusing })).rejects.toThrow('Dockerfile line 1: FROM example.org/x:1: example.org does not answer')
  })

  it('gives what COPY names to tar in the sandbox, and writes heredocs', async () => {
    const { host } = await build(
      'FROM alpine\nWORKDIR /w\nCOPY a.txt dir /data/\nCOPY a.txt b.txt\nCOPY <<F <<"G" /etc/\n$PATH\nF\n$PATH\nG\nRUN read /etc/G',
      { files: { 'a.txt': 'A', 'dir/x': 'X' } },
    )
    const copies = host.ran.filter(({ request }) => request.stdin !== undefined)
    expect(copies.map(({ request }) => request.command.slice(4))).toEqual([
      ['/data', ''],
      ['/w', ''],
    ])
  })

  it.each([
    ['FROM scratch', 'Dockerfile line 1: FROM scratch'],
    ['FROM --platform=linux/arm64 alpine', 'Dockerfile line 1: FROM --platform=linux/arm64'],
    ['FROM alpine\nRUN true\nONBUILD RUN x', 'Dockerfile line 3: ONBUILD is not done here'],
    ['FROM alpine\nRUN exit 3', 'Dockerfile line 2: RUN exit 3: ended with exit code 3'],
    ['FROM alpine\nRUN --mount=type=secret,id=x cat', 'Dockerfile line 2: RUN cat: RUN --mount is not done'],
    ['FROM alpine\nRUN', 'Dockerfile line 2: RUN: RUN needs a command'],
    ['FROM alpine\nCOPY nope /x', 'Dockerfile line 2: COPY nope /x: "nope" is not in the context'],
    ['FROM alpine\nCOPY --from=other nope /x', 'Dockerfile line 2: COPY nope /x: "nope" is not in image other'],
    ['FROM alpine\nCOPY ../../etc/passwd /x', 'is not in the context'],
    ['FROM alpine\nCOPY x', 'needs what to copy and where to'],
    ['FROM alpine\nADD https://example.org/x /x', 'https://example.org/x is not fetched'],
    ['FROM alpine\nCOPY --parents a b', '--parents is not done'],
    ['FROM alpine\nCOPY --chmod=u+x Dockerfile /x', '--chmod=u+x: must be octal'],
    ['FROM alpine\nUSER nobody\nRUN true', 'there is no user "nobody" in this image'],
    ['FROM alpine\nENV A', '"A" is not NAME=value'],
    ['FROM alpine\nENV A=${B', 'Dockerfile line 2: a ${ is not closed'],
    ['FROM alpine\nSHELL x', 'Dockerfile line 2: SHELL needs a JSON array'],
  ])('refuses %j', async (dockerfile, words) => {
    await expect(build(dockerfile)).rejects.toThrow(words)
  })

  it('has no more sandboxes at once than a build may', async () => {
    const host = new NotingHost()
    const stages = Array.from({ length: 17 }, (_, number) => `FROM debian-12 AS s${number}\n${number === 0 ? '' : `COPY --from=s${number - 1} /a /a\n`}`)
    await expect(build(stages.join(''), { host })).rejects.toMatchObject({ code: 'image_invalid', message: expect.stringContaining('at most 16') })
    expect(host.acquired).toHaveLength(0)
    const line = 'x'.repeat(100)
    const grows = Array.from({ length: 12 }, (_, number) => `ENV A${number}=${line}${`$A${number - 1}`.repeat(number === 0 ? 0 : 4)}\n`)
    await expect(build(`FROM debian-12\n${grows.join('')}`)).rejects.toMatchObject({
      code: 'image_invalid',
      message: expect.stringContaining('more than 128 KiB'),
    })
  })

  it('stops when it is cancelled', async () => {
    const abort = new AbortController()
    const host = new NotingHost()
    const lease = host.lease.bind(host)
    host.lease = (...args) => {
      queueMicrotask(() => abort.abort(new MagsError('bad_request', 'cancelled')))
      return lease(...args)
    }
    await expect(build('FROM alpine\nRUN wait', { host, abort: abort.signal })).rejects.toThrow('cancelled')
  })
})
// biome-ignore-end lint/suspicious/noTemplateCurlyInString: how Dockerfiles have them.
