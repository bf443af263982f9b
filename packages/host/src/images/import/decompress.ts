import { once } from 'node:events'
import { Readable } from 'node:stream'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import { startResident } from '../../run.ts'
import { nobodysRights } from '../nobody.ts'
import { imageInvalid } from './image-invalid.ts'

const beginnings = [
  ['gzip', Buffer.from([0x1f, 0x8b])],
  ['xz', Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00])],
  ['zstd', Buffer.from([0x28, 0xb5, 0x2f, 0xfd])],
  ['bzip2', Buffer.from('BZh')],
] as const

export interface DecompressOptions {
  /** What a program that unpacks says; made when missing. */
  readonly logFile: string
  readonly abort: AbortSignal
}

/** The bytes of a stream, unpacked when its beginning says that they are packed. Rejects with 'image_invalid' when they are damaged. Whoever leaves the loop ends all that works for it. */
export async function* decompress(source: AsyncIterable<Uint8Array>, options: DecompressOptions): AsyncGenerator<Uint8Array> {
  const chunks = source[Symbol.asyncIterator]()
  try {
    const first: Uint8Array[] = []
    for (let have = 0; have < 6; ) {
      const { value, done } = await chunks.next()
      if (done) break
      first.push(value)
      have += value.length
    }
    const begin = Buffer.concat(first)
    const kind = beginnings.find(([, magic]) => begin.subarray(0, magic.length).equals(magic))?.[0]
    const whole = prepend(begin, chunks)
    if (kind === undefined) yield* whole
    else if (kind === 'gzip') yield* through(whole, createGunzip(), kind)
    else if (kind === 'zstd') yield* through(whole, createZstdDecompress(), kind)
    else yield* throughProgram(whole, kind, options)
  } finally {
    await chunks.return?.().catch(() => undefined)
  }
}

async function* prepend(first: Buffer, rest: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array> {
  if (first.length > 0) yield first
  for (;;) {
    const { value, done } = await rest.next()
    if (done) return
    yield value
  }
}

async function* through(
  source: AsyncGenerator<Uint8Array>,
  unpack: NodeJS.ReadWriteStream & { destroy(error?: Error): void },
  kind: string,
): AsyncGenerator<Uint8Array> {
  const failure = Promise.withResolvers<never>()
  failure.promise.catch(() => undefined)
  let sourceError: unknown
  const input = Readable.from(source, { objectMode: false })
  input.on('error', (error) => {
    sourceError = error
    unpack.destroy(error)
  })
  try {
    for await (const chunk of input.pipe(unpack)) yield chunk as Buffer
  } catch (error) {
    if (sourceError !== undefined) throw sourceError
    const { code } = error as NodeJS.ErrnoException
    if (code?.startsWith('Z_') || code?.startsWith('ZSTD_') || code === 'ERR_STREAM_PREMATURE_CLOSE')
      throw imageInvalid(`the archive is no whole ${kind} file: ${(error as Error).message}`)
    throw error
  } finally {
    input.destroy()
    unpack.destroy()
  }
}

async function* throughProgram(source: AsyncGenerator<Uint8Array>, kind: 'xz' | 'bzip2', { logFile, abort }: DecompressOptions): AsyncGenerator<Uint8Array> {
  // A bound on memory: the size of its dictionary is said by the archive.
  const command = [kind, '--decompress', '--stdout', ...(kind === 'xz' ? ['--memlimit=512MiB'] : [])]
  const program = startResident('setpriv', [...nobodysRights, ...command], {
    logFile,
    stdin: 'pipe',
    stdout: 'pipe',
  })
  const ended = new Promise<number>((resolve, reject) => {
    program.once('error', reject)
    program.once('close', (code) => resolve(code ?? 128))
  })
  ended.catch(() => undefined)
  const kill = () => void program.kill('SIGKILL')
  abort.addEventListener('abort', kill, { once: true })
  let sourceError: unknown
  try {
    if (program.stdin === null || program.stdout === null) throw new Error(`${kind} has no pipes`)
    const feeding = feed(source, program.stdin).catch((error: unknown) => {
      sourceError = error
      kill()
    })
    for await (const chunk of program.stdout) yield chunk as Buffer
    const code = await ended
    await feeding
    if (sourceError !== undefined) throw sourceError
    abort.throwIfAborted()
    if (code !== 0) throw imageInvalid(`the archive is no whole ${kind} file`)
  } finally {
    abort.removeEventListener('abort', kill)
    kill()
  }
}

async function feed(source: AsyncGenerator<Uint8Array>, input: NodeJS.WritableStream): Promise<void> {
  let closed = false
  input.on('error', () => {
    closed = true
  })
  input.on('close', () => {
    closed = true
  })
  for await (const chunk of source) {
    if (closed) return
    if (!input.write(chunk)) await Promise.race([once(input, 'drain').catch(() => undefined), once(input, 'close').catch(() => undefined)])
  }
  input.end()
}
