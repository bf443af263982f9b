import { MagsError } from '@mags/protocol'
import { sha256 } from '../blocks/block-codec.ts'
import type { PackId, PackStore } from '../repository/repository.ts'

/** Packs in memory, for tests; counts what goes in and out. */
export class MemoryPackStore implements PackStore {
  readonly packs = new Map<PackId, Buffer>()
  readonly fetched: PackId[] = []
  uploadedBytes = 0
  puts = 0
  /** Called before each put, which waits for it. */
  onPut: (() => Promise<void>) | undefined

  async put(bytes: Uint8Array): Promise<{ readonly id: PackId; readonly uploadedBytes: number }> {
    this.puts++
    await this.onPut?.()
    const id = sha256(bytes).toString('hex')
    if (this.packs.has(id)) return { id, uploadedBytes: 0 }
    this.packs.set(id, Buffer.from(bytes))
    this.uploadedBytes += bytes.length
    return { id, uploadedBytes: bytes.length }
  }

  async get(id: PackId, abort?: AbortSignal): Promise<Buffer> {
    abort?.throwIfAborted()
    this.fetched.push(id)
    const pack = this.packs.get(id)
    if (pack === undefined) throw new MagsError('workspace_damaged', `The pack ${id} is missing.`)
    return pack
  }
}
