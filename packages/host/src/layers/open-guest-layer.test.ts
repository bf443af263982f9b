import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { AgentConnection } from '../agent/connection.ts'
import { cannotTestAgent, type RealAgent, releaseBuild, startRealAgent } from '../agent/testing/real-agent.ts'
import type { LayerContent } from './layer-session.ts'
import { openGuestLayer } from './open-guest-layer.ts'

/** Not the build with sanitizers: it needs libraries, which this root does not have. */
const build = releaseBuild
const cannot = cannotTestAgent("tests against the agent's layer worker", build, process.getuid?.() === 0 ? [] : ['root'])

/** The agent as an ordinary process in a root of its own, with the folders of a guest. */
describe.skipIf(cannot)('the layer worker behind an agent', () => {
  let home: string
  let program: RealAgent
  let agent: AgentConnection

  beforeAll(async () => {
    home = await mkdtemp(join(tmpdir(), 'guest-layer-'))
    const root = join(home, 'root')
    for (const folder of ['dev', 'proc', 'run']) await mkdir(join(root, folder), { recursive: true })
    await promisify(execFile)('mknod', [join(root, 'dev/null'), 'c', '1', '3'])
    await copyFile(join(build, 'agent'), join(root, 'agent'))
    program = startRealAgent(build, join(home, 'agent.sock'), ['chroot', root, '/agent', 'container'])
    agent = await program.connect()
  })

  afterAll(async () => {
    agent?.close()
    await program?.[Symbol.asyncDispose]()
    if (home) await rm(home, { recursive: true, force: true })
  })

  it('is not there without a disk', async () => {
    await expect(openGuestLayer(agent)).rejects.toMatchObject({ message: expect.stringMatching(/layer worker.*no such file/i), details: { errno: 2 } })
  })

  it('walks, reads and fills through a channel', async () => {
    const layer = join(home, 'root/ws/u')
    await mkdir(layer, { recursive: true })
    const bytes = randomBytes(5_000_000)
    const session = await openGuestLayer(agent)
    await session.write(
      (async function* () {
        const plain = { uid: 0, gid: 0, mtimeNs: 0n, attributes: [] }
        yield { kind: 'entry', entry: { ...plain, path: Buffer.alloc(0), kind: 'directory', mode: 0o755, sizeBytes: 0 } } as const
        yield { kind: 'entry', entry: { ...plain, path: Buffer.from('big'), kind: 'file', mode: 0o600, sizeBytes: bytes.length } } as const
        yield { kind: 'data', offset: 0, bytes } as const
      })(),
    )
    await writeFile(join(layer, 'small'), 'text')
    const paths: string[] = []
    for await (const batch of session.walk()) paths.push(...batch.map(({ path }) => path.toString()))
    expect(paths).toEqual(['', 'big', 'small'])
    const contents: LayerContent[] = []
    for await (const content of session.read([Buffer.from('big'), Buffer.from('small')])) contents.push(content)
    const data = (index: number) =>
      Buffer.concat(contents.map((content) => (content.kind === 'data' && content.index === index ? content.bytes : Buffer.alloc(0))))
    expect(data(0).equals(bytes)).toBe(true)
    expect(data(1).toString()).toBe('text')
    session.close()
    await agent.ping()
  })

  it('serves more than one, and ends with its session', async () => {
    const sessions = await Promise.all(Array.from({ length: 8 }, () => openGuestLayer(agent)))
    await expect(openGuestLayer(agent)).rejects.toMatchObject({ details: { errno: 11 } })
    for (const session of sessions) session.close()
    // Places are free again once the workers are gone, which takes them a moment.
    for (;;) {
      const session = await openGuestLayer(agent).catch(() => undefined)
      session?.close()
      if (session) break
    }
  })
})
