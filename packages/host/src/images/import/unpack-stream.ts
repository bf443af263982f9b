import { createHash } from 'node:crypto'
import { MagsError } from '@mags/protocol'
import { addArchive } from './add-archive.ts'
import { ByteReader } from './byte-reader.ts'
import { decompress } from './decompress.ts'
import type { ImageTree } from './image-tree.ts'
import { tooLarge } from './import-limits.ts'
import type { ImportWork } from './import-work.ts'
import { megabytes } from './progress.ts'
import type { Spool } from './spool.ts'

export interface UnpackOptions {
  readonly spool: Spool
  readonly layer: number
  readonly whiteouts: boolean
  /** What is unpacked, for progress. */
  readonly title: string
}

/** Unpacks one stream, plain or compressed, on top of a tree. Resolves with the digests of the stream as it came and as it was when it was unpacked, `sha256:…`. */
export async function unpackStream(
  tree: ImageTree,
  stream: AsyncIterable<Uint8Array>,
  work: ImportWork,
  options: UnpackOptions,
): Promise<{ digest: string; plainDigest: string }> {
  const { abort, progress, counts, limits, memory } = work
  const packed = createHash('sha256')
  const plain = createHash('sha256')
  const incoming = hashed(abortable(stream, abort), packed, (length) => {
    abort.throwIfAborted()
    counts.packedBytes += length
    if (counts.packedBytes > limits.maxBytes)
      throw new MagsError('too_large', `${options.title} is larger than ${megabytes(limits.maxBytes)}; the operator can allow more with MAGS_IMAGE_MAX_GB`)
    progress.tick(() => `${options.title}: ${megabytes(counts.packedBytes)}, ${counts.entries} entries`)
  })
  const reader = new ByteReader(
    hashed(decompress(incoming, work), plain, (length) => {
      counts.unpackedBytes += length
      // One layer that is named many times is unpacked as often.
      if (counts.unpackedBytes > limits.maxBytes) throw tooLarge(`it has more than ${megabytes(limits.maxBytes)} when it is unpacked`)
    }),
    limits.maxBytes,
  )
  try {
    await addArchive(tree, reader, {
      ...options,
      limits,
      counts,
      memory,
      onProgress: () => progress.tick(() => `${options.title}: ${megabytes(reader.taken)}, ${counts.entries} entries`),
    })
  } finally {
    await reader.close()
  }
  return { digest: `sha256:${packed.digest('hex')}`, plainDigest: `sha256:${plain.digest('hex')}` }
}

async function* hashed(stream: AsyncIterable<Uint8Array>, hash: ReturnType<typeof createHash>, onBytes: (length: number) => void): AsyncGenerator<Uint8Array> {
  for await (const chunk of stream) {
    hash.update(chunk)
    onBytes(chunk.length)
    yield chunk
  }
}

/** Ends with the reason of `abort` even while nothing comes. */
async function* abortable(stream: AsyncIterable<Uint8Array>, abort: AbortSignal): AsyncGenerator<Uint8Array> {
  const chunks = stream[Symbol.asyncIterator]()
  const aborted = Promise.withResolvers<never>()
  aborted.promise.catch(() => undefined)
  const onAbort = () => aborted.reject(abort.reason)
  abort.addEventListener('abort', onAbort, { once: true })
  try {
    for (;;) {
      abort.throwIfAborted()
      const { value, done } = await Promise.race([chunks.next(), aborted.promise])
      if (done) return
      yield value
    }
  } finally {
    abort.removeEventListener('abort', onAbort)
    // One that waits for more would only end with that.
    chunks.return?.()?.catch(() => undefined)
  }
}
