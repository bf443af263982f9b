import { describe, expect, it } from 'vitest'
import { feature, frameType } from '../agent/frame-constants.ts'
import { PayloadWriter } from '../agent/payload-writer.ts'
import { agentFrames, connectScripted } from '../agent/scripted-agent.ts'
import { bootRequest, checkBoots } from './boot-request.ts'

/** A sandbox whose agent answers a STAT with an entry of this type, or an errno. */
async function sandboxWith(init: 'f' | 'd' | number) {
  const { connection, agent } = await connectScripted([], undefined, feature.init)
  const answering = agent.nextOf(frameType.file).then(({ channel }) => {
    const errno = typeof init === 'number' ? init : 0
    const entry = typeof init === 'number' ? '' : statOf(init)
    agent.send(agentFrames.opened(channel), agentFrames.data(channel, 1, 0, entry), agentFrames.eof(channel, 1, entry.length), agentFrames.eof(channel, 2, 0))
    agent.send(agentFrames.exit(channel, errno))
  })
  return { sandbox: { isolation: 'kvm', agent: connection } as const, answering }
}

function statOf(type: 'f' | 'd'): Buffer {
  return new PayloadWriter().string('init').u8(type.charCodeAt(0)).u32(0o755).u64(10).u64(0).frame(0, 0, 0).subarray(12)
}

describe('the request that boots an image', () => {
  it('starts its init on a console, as a container manager would', async () => {
    const { sandbox, answering } = await sandboxWith('f')
    expect(await bootRequest(sandbox, { EXTRA: 'word' })).toMatchObject({
      argv: ['/sbin/init'],
      init: true,
      pty: { rows: 24 },
      env: { container: 'mags', HOME: '/root', TERM: 'dumb', EXTRA: 'word' },
    })
    await answering
    sandbox.agent.close()
  })

  it.each([
    ['has no init', 2],
    ['has a folder in its place', 'd'],
  ] as const)('is refused when the image %s', async (_why, init) => {
    const { sandbox, answering } = await sandboxWith(init)
    await expect(bootRequest(sandbox, {})).rejects.toMatchObject({ code: 'not_available', message: expect.stringContaining('/sbin/init') as string })
    await answering
    sandbox.agent.close()
  })

  it('fails as its files do when they cannot be asked', async () => {
    const { sandbox, answering } = await sandboxWith(5)
    await expect(bootRequest(sandbox, {})).rejects.not.toMatchObject({ code: 'not_available' })
    await answering
    sandbox.agent.close()
  })

  it('is refused in containers, and by agents that do not tell they can', async () => {
    const { connection: old } = await connectScripted()
    expect(() => checkBoots({ isolation: 'kvm', agent: old })).toThrow(
      expect.objectContaining({ code: 'not_available', message: expect.stringContaining('earlier release') as string }),
    )
    old.close()
    const { connection } = await connectScripted([], undefined, feature.init)
    expect(() => checkBoots({ isolation: 'container', agent: connection })).toThrow(expect.objectContaining({ code: 'not_available' }))
    expect(() => checkBoots({ isolation: 'emulated-vm', agent: connection })).not.toThrow()
    connection.close()
  })
})
