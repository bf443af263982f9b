import { pipeline, Readable } from 'node:stream'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import { MagsError } from '@mags/protocol'

const gzip = Buffer.from([0x1f, 0x8b])
const zstd = Buffer.from([0x28, 0xb5, 0x2f, 0xfd])

/**
 * An archive as it is, or unpacked when it is packed with gzip or zstd: here, because the parser would do it within the event loop, as often over as there are layers. Rejects with MagsError 'image_invalid', and 'too_large' beyond `maxBytes`.
 */
export async function* plainTar(content: AsyncIterable<Uint8Array>, maxBytes: number): AsyncGenerator<Uint8Array> {
  const packed = await beginningOf(content)
  const unpack = isPacked(packed.begin, gzip) ? createGunzip() : isPacked(packed.begin, zstd) ? createZstdDecompress() : undefined
  let bytes = 0
  try {
    if (unpack) pipeline(Readable.from(packed.all(), { objectMode: false }), unpack, () => undefined)
    const plain = await beginningOf(unpack ?? packed.all())
    if (isPacked(plain.begin, gzip) || isPacked(plain.begin, zstd)) throw new MagsError('image_invalid', 'the archive is packed more than once')
    for await (const part of plain.all()) {
      bytes += part.length
      if (bytes > maxBytes) throw new MagsError('too_large', `the archive has more than ${Math.floor(maxBytes / 1024 ** 2)} MiB when it is unpacked`)
      yield part
    }
  } catch (error) {
    if (unpack === undefined || error instanceof MagsError || !isDamage(error)) throw error
    throw new MagsError('image_invalid', `the archive is damaged: ${error.message}`, { cause: error })
  } finally {
    unpack?.destroy()
    await packed.close()
  }
}

const isPacked = (begin: Buffer, magic: Buffer) => begin.subarray(0, magic.length).equals(magic)
const isDamage = (error: unknown): error is Error => error instanceof Error && /^(Z|ZSTD)_/.test(String((error as NodeJS.ErrnoException).code))

/** Its first bytes, and then all of it. */
async function beginningOf(content: AsyncIterable<Uint8Array>) {
  const parts = content[Symbol.asyncIterator]()
  const first: Uint8Array[] = []
  let length = 0
  while (length < zstd.length) {
    const { value, done } = await parts.next()
    if (done) break
    first.push(value)
    length += value.length
  }
  return {
    begin: Buffer.concat(first),
    async *all(): AsyncGenerator<Uint8Array> {
      yield* first
      for (;;) {
        const { value, done } = await parts.next()
        if (done) return
        yield value
      }
    },
    close: async () => void (await parts.return?.()),
  }
}
