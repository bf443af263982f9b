import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { chown, rm } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { basename } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { MagsError } from '@mags/protocol'
import type { QmpConnection } from './qmp.ts'

/** Where RAM is a file of its own that others share, it stays out of the stream, which then holds the devices only (about 70 KB). */
const capabilities = (memory: boolean) => ({ capabilities: [{ capability: 'x-ignore-shared', state: !memory }] })
/** QEMU holds itself back by default, out of regard for a network. */
const bandwidthBytesPerSecond = 2 ** 40

export interface SaveStateOptions {
  /** In the folder QEMU has as its root. */
  readonly socketPath: string
  readonly uid: number
  readonly file: string
  /** RAM is to be in the file, too, without pages that are all zero. */
  readonly memory: boolean
  /** Of the machine. */
  readonly memoryMb: number
  readonly timeoutMs: number
}

const pageBytes = 4096
/** What QEMU says with each page. */
const pageHeadBytes = 64
/** Devices take a hundredth of it. */
const deviceBytes = 64 * 2 ** 20

/** The most that there can be to save: a QEMU that somebody has taken over must not fill the disk. */
function longestState({ memory, memoryMb }: Pick<SaveStateOptions, 'memory' | 'memoryMb'>): number {
  return deviceBytes + (memory ? memoryMb * (2 ** 20 / pageBytes) * (pageBytes + pageHeadBytes) : 0)
}

/**
 * Saves the state of a stopped machine to a file. QEMU may neither execute a program nor write to its folder, so it connects to a socket of ours there. Whether it succeeds or rejects, the machine is
 * stopped as before, and may go on.
 */
export async function saveState(qmp: QmpConnection, options: SaveStateOptions): Promise<void> {
  const { socketPath, uid, file, memory, timeoutMs } = options
  const mostBytes = longestState(options)
  await using undo = new AsyncDisposableStack()
  const server = createServer()
  undo.defer(() => void server.close())
  undo.defer(() => rm(socketPath, { force: true }))
  // A daemon that ended in the middle of this has left one.
  await rm(socketPath, { force: true })
  server.listen(socketPath)
  await once(server, 'listening')
  await chown(socketPath, uid, uid)
  const accepted = once(server, 'connection') as Promise<[Socket]>
  await qmp.execute('migrate-set-capabilities', capabilities(memory))
  await qmp.execute('migrate-set-parameters', { 'max-bandwidth': bandwidthBytesPerSecond })
  await qmp.execute('migrate', { uri: `unix:/${basename(socketPath)}` })
  try {
    const [socket] = await withDeadline(qmp, accepted, timeoutMs)
    undo.defer(() => void socket.destroy())
    socket.on('data', () => {
      if (socket.bytesRead > mostBytes) socket.destroy(new MagsError('sandbox_failed', 'QEMU sends more than the state of its machine'))
    })
    await withDeadline(qmp, pipeline(socket, createWriteStream(file, { mode: 0o600, highWaterMark: 1 << 20 })), timeoutMs)
    await migrationEnd(qmp, timeoutMs)
  } catch (error) {
    // Only once QEMU has given it up, too, the machine can go on.
    await qmp.execute('migrate_cancel').catch(() => undefined)
    await migrationEnd(qmp, timeoutMs).catch(() => undefined)
    throw error
  }
}

/** Loads what `saveState` wrote, from a descriptor QEMU inherited. The machine is then as it was: stopped. */
export async function loadState(qmp: QmpConnection, options: { readonly fd: number; readonly memory: boolean; readonly timeoutMs: number }): Promise<void> {
  const { fd, memory, timeoutMs } = options
  await Promise.all([
    qmp.execute('migrate-set-capabilities', capabilities(memory)),
    // Otherwise each clone would claim the template's address on the network.
    qmp.execute('migrate-set-parameters', { 'announce-rounds': 0 }),
    qmp.execute('migrate-incoming', { uri: `fd:${fd}` }),
  ])
  await migrationEnd(qmp, timeoutMs)
}

/** There is an event for the end too, but it has to be asked for and comes no sooner. */
async function migrationEnd(qmp: QmpConnection, timeoutMs: number): Promise<void> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    const answer = (await qmp.execute('query-migrate')) as { status?: string; 'error-desc'?: string }
    if (answer.status === 'completed') return
    if (answer.status === 'failed' || answer.status === 'cancelled') {
      throw new MagsError('sandbox_failed', `the state of a virtual machine could not be moved: ${answer['error-desc'] ?? answer.status}`)
    }
    if (performance.now() > deadline) throw new MagsError('sandbox_failed', `the state of a virtual machine was not moved within ${timeoutMs} ms`)
    await delay(1)
  }
}

/** Waits no longer than QEMU lives. */
function withDeadline<T>(qmp: QmpConnection, work: Promise<T>, timeoutMs: number): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => reject(new MagsError('sandbox_failed', `QEMU did not hand over its state within ${timeoutMs} ms`)), timeoutMs)
  qmp.closed.then(() => reject(new MagsError('sandbox_failed', 'QEMU ended before it had handed over its state')))
  promise.catch(() => undefined)
  work.catch(() => undefined)
  return Promise.race([work, promise]).finally(() => clearTimeout(timer))
}
