import { MagsError, type SandboxFile, type SandboxFiles } from '@mags/protocol'
import { AgentProtocolError } from '../agent/agent-protocol-error.ts'
import type { AgentConnection, AgentExec, AgentExit, AgentFileEntry, AgentFileRequest } from '../agent/connection.ts'
import { decodeEntry } from '../agent/decode-frames.ts'
import { fileListLimit, filePieceLimit } from '../agent/frame-constants.ts'
import { PayloadReader } from '../agent/payload-reader.ts'
import { requestError } from '../agent/request-error.ts'

/** Without any sign of progress from the sandbox: a mount in it may have lost its server. */
const silenceLimitMs = 60_000
/** A tree of a million files takes its time, and nothing is heard of it meanwhile. */
const removeLimitMs = 600_000
/** Of one listing: names of 255 bytes, and more than that is not what was asked for. */
const entryBytesMax = 4 + 255 + 1 + 4 + 8 + 8

const types: Readonly<Record<AgentFileEntry['type'], SandboxFile['type']>> = {
  directory: 'directory',
  file: 'file',
  symlink: 'symlink',
  fifo: 'fifo',
  socket: 'socket',
  'char-device': 'device',
  'block-device': 'device',
}

/** Files of a sandbox through its agent; every call is one process inside it (docs/agent-protocol.md, FILE), and nothing of what it says is believed unchecked. */
export class AgentSandboxFiles implements SandboxFiles {
  readonly #agent: Pick<AgentConnection, 'file'>

  constructor(agent: Pick<AgentConnection, 'file'>) {
    this.#agent = agent
  }

  async stat(path: string): Promise<SandboxFile> {
    const what = `stat ${path}`
    const bytes = await this.#collect(what, { op: 'stat', path }, entryBytesMax, silenceLimitMs)
    return decodeAll(what, bytes, (reader) => presentEntry(decodeEntry(reader)))
  }

  async list(path: string, limit: number): Promise<{ entries: SandboxFile[]; truncated: boolean }> {
    const what = `list ${path}`
    const most = Math.min(Math.max(1, limit), fileListLimit)
    const bytes = await this.#collect(what, { op: 'list', path, most }, 1 + most * entryBytesMax, silenceLimitMs)
    return decodeAll(what, bytes, (reader) => {
      const truncated = reader.u8() !== 0
      const entries: SandboxFile[] = []
      while (reader.left > 0) {
        const entry = decodeEntry(reader)
        if (entry.name === '' || entry.name === '.' || entry.name === '..' || entry.name.includes('/')) throw new AgentProtocolError('a name that is a path')
        if (entries.length === most) throw new AgentProtocolError(`more than ${most} entries`)
        entries.push(presentEntry(entry))
      }
      return { entries, truncated }
    })
  }

  /** Not more than a window (256 KiB) is held, and nothing is read before somebody wants it. */
  async *read(path: string, range?: { readonly offset: number; readonly lengthBytes: number }): AsyncGenerator<Uint8Array, void, undefined> {
    const what = `read ${path}`
    const most = range?.lengthBytes ?? Number.MAX_SAFE_INTEGER
    let offered: { readonly bytes: Buffer; readonly taken: () => void } | undefined
    let offer = Promise.withResolvers<void>()
    const work = this.#agent.file({ op: 'read', path, offset: range?.offset ?? 0, most }, (stream, _offset, bytes) => {
      if (stream !== 'stdout') return undefined
      return new Promise((resolve) => {
        offered = { bytes, taken: () => resolve(undefined) }
        offer.resolve()
      })
    })
    const ended = work.exit.then((exit) => checkExit(what, exit))
    ended.catch(() => undefined)
    try {
      for (let left = most; ; ) {
        await within(what, Promise.race([offer.promise, ended]), silenceLimitMs)
        const piece = offered
        if (piece === undefined) return
        if (piece.bytes.length > left) throw new MagsError('sandbox_failed', `${what}: the sandbox sent more than was asked for`)
        left -= piece.bytes.length
        yield piece.bytes
        offered = undefined
        offer = Promise.withResolvers<void>()
        piece.taken()
      }
    } finally {
      work.close()
    }
  }

  async write(path: string, content: AsyncIterable<Uint8Array>, options: { readonly mode?: number } = {}): Promise<void> {
    const { mode } = options
    if (mode !== undefined && !(Number.isInteger(mode) && mode >= 0 && mode <= 0o7777)) throw new MagsError('bad_request', 'mode: must be from 0 to 07777')
    const what = `write ${path}`
    const work = this.#agent.file({ op: 'write', path, ...(mode === undefined ? {} : { mode }) }, () => undefined)
    // Whatever ends it before all was sent is a failure.
    const failed = work.exit.then((exit) => {
      checkExit(what, exit)
      throw new MagsError('sandbox_failed', `${what}: the sandbox stopped reading`)
    })
    failed.catch(() => undefined)
    const source = content[Symbol.asyncIterator]()
    try {
      for (;;) {
        const { done, value } = await Promise.race([source.next(), failed])
        if (done) break
        await sendPieces(what, work, value, failed)
      }
      void work.writeStdin(Buffer.alloc(4))
      work.endStdin()
      checkExit(what, await within(what, work.exit, silenceLimitMs))
    } catch (error) {
      // Not awaited: it would wait for the piece that is still to come.
      void Promise.resolve(source.return?.()).catch(() => undefined)
      throw error
    } finally {
      // Before its end this takes back what is half written.
      work.close()
    }
  }

  async remove(path: string, { recursive }: { readonly recursive: boolean }): Promise<void> {
    await this.#collect(`remove ${path}`, { op: 'remove', path, recursive }, 0, removeLimitMs)
  }

  async #collect(what: string, request: AgentFileRequest, mostBytes: number, limitMs: number): Promise<Buffer> {
    const pieces: Buffer[] = []
    let total = 0
    const work = this.#agent.file(request, (stream, _offset, bytes) => {
      if (stream !== 'stdout') return undefined
      total += bytes.length
      if (total > mostBytes) throw new MagsError('sandbox_failed', `${what}: the sandbox sent more than was asked for`)
      pieces.push(bytes)
      return undefined
    })
    try {
      checkExit(what, await within(what, work.exit, limitMs))
      return Buffer.concat(pieces, total)
    } finally {
      work.close()
    }
  }
}

async function sendPieces(what: string, work: AgentExec, bytes: Uint8Array, failed: Promise<never>): Promise<void> {
  for (let at = 0; at < bytes.length; at += filePieceLimit) {
    const piece = bytes.subarray(at, at + filePieceLimit)
    const head = Buffer.allocUnsafe(4)
    head.writeUInt32LE(piece.length)
    void work.writeStdin(head)
    // When it is refused because the process ended, why it ended says more.
    const sent = work.writeStdin(piece).catch(() => failed)
    await within(what, Promise.race([sent, failed]), silenceLimitMs)
  }
}

function checkExit(what: string, exit: AgentExit): void {
  if (exit.kind === 'signalled') throw new MagsError('sandbox_failed', `${what}: the work was ended by signal ${exit.code}; the sandbox may be out of memory`)
  if (exit.code !== 0) throw requestError(what, exit.code)
}

async function within<T>(what: string, promise: Promise<T>, limitMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const silence = new Promise<never>((_resolve, reject) => {
    const words = `${what}: the sandbox did not get on with it for ${limitMs / 1000} s; a mount in it may hang`
    timer = setTimeout(() => reject(new MagsError('sandbox_failed', words)), limitMs)
  })
  try {
    return await Promise.race([promise, silence])
  } finally {
    clearTimeout(timer)
  }
}

function decodeAll<T>(what: string, bytes: Buffer, decode: (reader: PayloadReader) => T): T {
  try {
    const reader = new PayloadReader(bytes)
    const value = decode(reader)
    reader.end()
    return value
  } catch (error) {
    if (!(error instanceof AgentProtocolError)) throw error
    throw new MagsError('sandbox_failed', `${what}: the sandbox answered with what cannot be: ${error.message}`, { cause: error })
  }
}

function presentEntry({ name, type, size, mode, mtimeNs }: AgentFileEntry): SandboxFile {
  return { name, type: types[type], sizeBytes: size, mode: mode & 0o7777, modifiedAt: new Date(Number(mtimeNs / 1_000_000n)).toISOString() }
}
