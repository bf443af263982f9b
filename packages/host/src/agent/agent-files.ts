import { AgentProtocolError } from './agent-protocol-error.ts'
import type { AgentRequests } from './agent-requests.ts'
import type { AgentFileEntry } from './connection.ts'
import { decodeEntries, decodeEntry } from './decode-frames.ts'
import { readLimit, requestOp } from './frame-constants.ts'

/** One WRITE carries at most this; larger files go in several. */
const writePieceBytes = 1 << 20

/** `stat` never follows the last link. */
export function statFile(requests: AgentRequests, path: string): Promise<AgentFileEntry> {
  return requests.call({ op: requestOp.stat, what: `stat ${path}`, write: (writer) => writer.string(path), decode: decodeEntry })
}

export function listFiles(requests: AgentRequests, path: string, skip: number, most: number): Promise<{ entries: AgentFileEntry[]; more: boolean }> {
  return requests.call({
    op: requestOp.list,
    what: `list ${path}`,
    write: (writer) => writer.string(path).u32(skip).u32(most),
    decode: (reader) => decodeEntries(reader, most),
  })
}

/** Up to `most` bytes from `offset`; fewer only at the end of the file. A file that changes meanwhile gives a mixture. */
export async function readFilePieces(requests: AgentRequests, path: string, offset: number, most: number): Promise<Buffer> {
  const pieces: Buffer[] = []
  let total = 0
  while (total < most) {
    const wanted = Math.min(readLimit, most - total)
    const piece = await requests.call({
      op: requestOp.read,
      what: `read ${path}`,
      write: (writer) =>
        writer
          .string(path)
          .u64(offset + total)
          .u32(wanted),
      decode: (reader) => {
        if (reader.left > wanted) throw new AgentProtocolError(`${reader.left} bytes read, ${wanted} were asked for`)
        // A copy: the view would keep its whole chunk.
        return Buffer.from(reader.rest())
      },
    })
    pieces.push(piece)
    total += piece.length
    if (piece.length < wanted) break
  }
  return pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces, total)
}

/** Not atomic: a reader may see the file between two pieces of 1 MiB. */
export async function writeFilePieces(
  requests: AgentRequests,
  path: string,
  bytes: Uint8Array,
  options: { mode: number; offset: number; truncate: boolean; parents: boolean },
): Promise<void> {
  let at = 0
  do {
    const piece = bytes.subarray(at, at + writePieceBytes)
    const first = at === 0
    const offset = options.offset + at
    const flags = (first && options.truncate ? 1 : 0) | (first && options.parents ? 2 : 0)
    await requests.call({
      op: requestOp.write,
      what: `write ${path}`,
      write: (writer) => writer.string(path).u32(options.mode).u8(flags).u64(offset).blob(piece),
      decode: () => undefined,
    })
    at += piece.length
  } while (at < bytes.length)
}

export function removeFile(requests: AgentRequests, path: string, recursive: boolean): Promise<void> {
  return requests.call({
    op: requestOp.remove,
    what: `remove ${path}`,
    write: (writer) => writer.string(path).u8(recursive ? 1 : 0),
    decode: () => undefined,
  })
}

export function makeDirectory(requests: AgentRequests, path: string, mode: number, parents: boolean): Promise<void> {
  return requests.call({
    op: requestOp.makeDirectory,
    what: `make directory ${path}`,
    write: (writer) =>
      writer
        .string(path)
        .u32(mode)
        .u8(parents ? 1 : 0),
    decode: () => undefined,
  })
}
