import { MagsError } from '@mags/protocol'
import type { AgentFileEntry, AgentFileRequest } from '../../agent/connection.ts'
import type { FakeProgram } from './fake-machine.ts'
import type { FakeProcess } from './fake-process.ts'

/** What the agent's FILE work does, on a machine's {@link FakeFiles}: the same bytes in and out, an errno as exit code. */
export function fakeFileWork(request: AgentFileRequest): FakeProgram {
  return async (process) => {
    try {
      await work(request, process)
      return 0
    } catch (error) {
      const errno = error instanceof MagsError ? error.details?.errno : undefined
      if (typeof errno !== 'number') throw error
      return errno
    }
  }
}

async function work(request: AgentFileRequest, process: FakeProcess) {
  const { files } = process.machine
  if (request.op === 'stat') await process.write('stdout', entryBytes(files.stat(request.path)))
  else if (request.op === 'list') {
    const { entries, more } = files.list(request.path, request.most)
    await process.write('stdout', Buffer.concat([Buffer.from([more ? 1 : 0]), ...entries.map(entryBytes)]))
  } else if (request.op === 'read') {
    const bytes = files.read(request.path, request.offset, request.most)
    for (let at = 0; at < bytes.length; at += pieceBytes) await process.write('stdout', bytes.subarray(at, at + pieceBytes))
  } else if (request.op === 'write') {
    const bytes = joinPieces(await readToEnd(process))
    files.write(request.path, bytes, { mode: request.mode ?? 0o644, offset: 0, truncate: true, parents: true })
  } else if (request.op === 'sftp') throw new MagsError('not_available', 'SFTP in a machine without a kernel', { details: { errno: notImplemented } })
  else files.remove(request.path, { recursive: request.recursive })
}

/** ENOSYS. */
const notImplemented = 38
const pieceBytes = 64 << 10

async function readToEnd(process: FakeProcess): Promise<Buffer> {
  const parts: Buffer[] = []
  for (let part = await process.readStdin(); part !== undefined; part = await process.readStdin()) parts.push(part)
  return Buffer.concat(parts)
}

function joinPieces(input: Buffer): Buffer {
  const pieces: Buffer[] = []
  for (let at = 0; ; ) {
    const length = input.readUInt32LE(at)
    if (length === 0) return Buffer.concat(pieces)
    pieces.push(input.subarray(at + 4, at + 4 + length))
    at += 4 + length
  }
}

function entryBytes({ name, type, mode, size, mtimeNs }: AgentFileEntry): Buffer {
  const letters = { file: 'f', directory: 'd', symlink: 'l', fifo: 'p', socket: 's', 'char-device': 'c', 'block-device': 'b' } as const
  const head = Buffer.alloc(4)
  head.writeUInt32LE(Buffer.byteLength(name))
  const tail = Buffer.alloc(21)
  tail.write(letters[type])
  tail.writeUInt32LE(mode, 1)
  tail.writeBigUInt64LE(BigInt(size), 5)
  tail.writeBigInt64LE(mtimeNs, 13)
  return Buffer.concat([head, Buffer.from(name), tail])
}
