import { describe, expect, it } from 'vitest'
import { DiskStall } from './disk-stall.ts'
import type { QmpConnection } from './qmp.ts'

const quick = { firstWaitMs: 1, longestWaitMs: 2, quietMs: 5 }
const event = (data: object = { nospace: true, reason: 'No space left on device' }) => ({ event: 'BLOCK_IO_ERROR', data: { action: 'stop', ...data } })

/** A QEMU of which each `cont` does what the test says. */
function fakeQemu(onCont: () => void) {
  const closed = Promise.withResolvers<undefined>()
  const commands: string[] = []
  const execute = async (command: string) => {
    commands.push(command)
    onCont()
  }
  return { qmp: { execute, closed: closed.promise } as unknown as QmpConnection, commands, close: () => closed.resolve(undefined) }
}

function heardOf(stall: DiskStall) {
  const heard: (string | undefined)[] = []
  stall.watch((words) => heard.push(words))
  return heard
}

describe('DiskStall', () => {
  it('tells once why the machine stands still, and goes on as soon as no write fails', async () => {
    const stall = new DiskStall(quick)
    let failures = 3
    const qemu = fakeQemu(() => {
      if (failures-- > 0) stall.note(event())
    })
    stall.follow(qemu.qmp)
    const heard = heardOf(stall)
    stall.note({ event: 'STOP', data: {} })
    stall.note(event({ action: 'report' }))
    expect(stall.words).toBeUndefined()
    stall.note(event())
    expect(heard).toEqual([expect.stringMatching(/disk is full; free some space/)])
    await expect.poll(() => heard).toEqual([expect.anything(), undefined])
    expect(qemu.commands).toEqual(['cont', 'cont', 'cont', 'cont'])
    qemu.close()
  })

  it('names another reason than a full disk', () => {
    const stall = new DiskStall(quick)
    stall.note(event({ nospace: false, reason: 'Read-only file system' }))
    expect(stall.words).toContain('cannot be written on this server (Read-only file system)')
  })

  it('leaves one alone that stands still on purpose, until it is released', async () => {
    const stall = new DiskStall(quick)
    const qemu = fakeQemu(() => undefined)
    stall.hold()
    stall.follow(qemu.qmp, { stalled: true })
    const heard = heardOf(stall)
    expect(heard).toEqual([expect.stringContaining('is full')])
    const other = new DiskStall(quick)
    const free = fakeQemu(() => undefined)
    other.follow(free.qmp, { stalled: true })
    await expect.poll(() => other.words).toBeUndefined()
    // By then this one would have been told to go on, too.
    expect(qemu.commands).toEqual([])
    stall.release()
    await expect.poll(() => heard.at(-1)).toBeUndefined()
    expect(qemu.commands).toEqual(['cont'])
    qemu.close()
    free.close()
  })
})
