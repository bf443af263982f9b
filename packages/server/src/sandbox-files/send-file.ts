import { Readable } from 'node:stream'
import { MagsError, type SandboxFile, type SandboxFiles } from '@mags/protocol'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { type ByteRange, parseByteRange } from './byte-range.ts'

/** Answers GET and HEAD for a file of a sandbox, as RFC 9110 has it: one range, If-Range by date. */
export async function sendFile(request: FastifyRequest, reply: FastifyReply, files: SandboxFiles, path: string): Promise<FastifyReply> {
  const file = await files.stat(path)
  if (file.type === 'directory') throw new MagsError('bad_request', 'path: is a folder; GET …/files/list lists it, GET …/files/archive has all in it')
  if (file.type !== 'file') throw new MagsError('bad_request', `path: is not a file but a ${file.type}`)
  const modified = new Date(file.modifiedAt).toUTCString()
  reply.headers({
    'content-type': 'application/octet-stream',
    'last-modified': modified,
    'accept-ranges': 'bytes',
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'x-mags-mode': octal(file.mode),
  })
  const range = wantedRange(request, reply, file, modified)
  if (range !== undefined) reply.code(206).headers({ 'content-range': `bytes ${range.offset}-${range.offset + range.lengthBytes - 1}/${file.sizeBytes}` })
  // What the kernel makes up as it is read (/proc, /sys) says it is empty: it goes out without a length.
  const lengthBytes = range?.lengthBytes ?? (file.sizeBytes > 0 ? file.sizeBytes : undefined)
  if (lengthBytes !== undefined) reply.header('content-length', lengthBytes)
  if (request.method === 'HEAD') return reply.send()
  const content = lengthBytes === undefined ? files.read(path) : exactly(files.read(path, { offset: range?.offset ?? 0, lengthBytes }), lengthBytes)
  return reply.send(Readable.from(content, { objectMode: false }))
}

export function octal(mode: number): string {
  return mode.toString(8).padStart(4, '0')
}

function wantedRange(request: FastifyRequest, reply: FastifyReply, file: SandboxFile, modified: string): ByteRange | undefined {
  const condition = request.headers['if-range']
  if (request.method !== 'GET' || (condition !== undefined && condition !== modified)) return undefined
  try {
    return parseByteRange(request.headers.range, file.sizeBytes)
  } catch (error) {
    reply.headers({ 'content-range': `bytes */${file.sizeBytes}`, 'content-type': 'application/json; charset=utf-8' })
    throw error
  }
}

/** A file that became shorter meanwhile must not look whole. */
async function* exactly(content: AsyncIterable<Uint8Array>, lengthBytes: number): AsyncGenerator<Uint8Array> {
  let left = lengthBytes
  for await (const bytes of content) {
    left -= bytes.length
    yield bytes
  }
  if (left > 0) throw new MagsError('sandbox_failed', 'the file became shorter while it was read; try again')
}
