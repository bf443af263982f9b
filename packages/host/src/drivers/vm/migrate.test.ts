import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { saveState } from './migrate.ts'
import type { QmpConnection } from './qmp.ts'

const mib = 2 ** 20

/** A QEMU that sends so many bytes as its state. */
function open(bytes: number) {
  const directory = mkdtempSync(join(tmpdir(), 'mags-migrate-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  const socketPath = join(directory, 'state.sock')
  const commands: string[] = []
  const qmp = {
    closed: new Promise<void>(() => {}),
    execute: async (command: string) => {
      commands.push(command)
      if (command === 'migrate') {
        const socket = connect(socketPath)
        socket.on('error', () => {})
        onTestFinished(() => void socket.destroy())
        socket.end(Buffer.alloc(bytes))
      }
      return command === 'query-migrate' ? { status: commands.includes('migrate_cancel') ? 'cancelled' : 'completed' } : {}
    },
  } as unknown as QmpConnection
  const file = join(directory, 'memory')
  const uid = process.getuid?.() ?? 0
  return { file, commands, save: (memory: boolean) => saveState(qmp, { socketPath, uid, file, memory, memoryMb: 16, timeoutMs: 10_000 }) }
}

describe('the state of a machine', () => {
  it('goes to a file that only we can read', async () => {
    const { save, file } = open(72 * mib)
    await save(true)
    expect(statSync(file)).toMatchObject({ size: 72 * mib, mode: 0o100600 })
  })

  it.each([
    ['its memory and devices', true, 128],
    ['its devices', false, 72],
  ])('is no more than %s', async (_what, memory, sizeMb) => {
    const { save, file, commands } = open(sizeMb * mib)
    await expect(save(memory)).rejects.toMatchObject({ code: 'sandbox_failed', message: 'QEMU sends more than the state of its machine' })
    expect(statSync(file).size).toBeLessThan(sizeMb * mib)
    expect(commands).toContain('migrate_cancel')
  })
})
