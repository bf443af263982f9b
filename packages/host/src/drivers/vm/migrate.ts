import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { chown, rm } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { basename } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { MagsError } from '@mags/protocol'
import type { QmpConnection } from './qmp.ts'

/** RAM is a file of its own and stays out of the stream, which then holds the devices only (about 70 KB). */
const capabilities = { capabilities: [{ capability: 'x-ignore-shared', state: true }] }

/**
 * Saves the state of a stopped machine's devices to a file. QEMU may neither execute a program nor write to its folder, so it connects to a socket of ours there.
 *
 * @param socketPath in the folder QEMU has as its root
 */
export async function saveState(qmp: QmpConnection, options: { socketPath: string; uid: number; file: string; timeoutMs: number }): Promise<void> {
  const { socketPath, uid, file, timeoutMs } = options
  await using undo = new AsyncDisposableStack()
  const server = createServer()
  undo.defer(() => void server.close())
  undo.defer(() => rm(socketPath, { force: true }))
  server.listen(socketPath)
  await once(server, 'listening')
  await chown(socketPath, uid, uid)
  const accepted = once(server, 'connection') as Promise<[Socket]>
  await qmp.execute('migrate-set-capabilities', capabilities)
  await qmp.execute('migrate', { uri: `unix:/${basename(socketPath)}` })
  const [socket] = await withDeadline(accepted, timeoutMs)
  undo.defer(() => void socket.destroy())
  await withDeadline(pipeline(socket, createWriteStream(file, { mode: 0o600 })), timeoutMs)
  await migrationEnd(qmp, timeoutMs)
}

/** Loads what `saveState` wrote, from a descriptor QEMU inherited. The machine is then as it was: stopped. */
export async function loadState(qmp: QmpConnection, fd: number, timeoutMs: number): Promise<void> {
  await Promise.all([
    qmp.execute('migrate-set-capabilities', capabilities),
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

function withDeadline<T>(work: Promise<T>, timeoutMs: number): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => reject(new MagsError('sandbox_failed', `QEMU did not hand over its state within ${timeoutMs} ms`)), timeoutMs)
  work.catch(() => undefined)
  return Promise.race([work, promise]).finally(() => clearTimeout(timer))
}
