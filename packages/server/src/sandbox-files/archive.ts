import { Readable } from 'node:stream'
import { type ExecRequest, MagsError, type ScriptExit } from '@mags/protocol'

/** What can run a program in a sandbox: a JobRun. */
export interface ArchiveRunner {
  exec(
    request: ExecRequest,
    onOutput: (source: 'stdout' | 'stderr', bytes: Uint8Array) => Promise<void> | void,
    abort: AbortSignal,
  ): Promise<ScriptExit & { timedOut: boolean }>
}

const timeoutMs = 3600 * 1000
const keptWordsBytes = 2000
/** tar(1): a file changed while it was read; the archive is whole. */
const changedExitCode = 1

/**
 * The content of a folder as tar in the sandbox writes it (pax, whole seconds; names relative to the folder; what is mounted in it left out). The stream fails
 * when tar does, so that nobody takes half an archive for a whole one; destroying it ends tar.
 */
export function packFolder(run: ArchiveRunner, path: string): Readable {
  const abort = new AbortController()
  let wanted = Promise.withResolvers<void>()
  const stream = new Readable({
    read: () => wanted.resolve(),
    destroy: (error, done) => {
      abort.abort()
      wanted.resolve()
      done(error)
    },
  })
  const words = new LastWords()
  const onOutput = async (source: 'stdout' | 'stderr', bytes: Uint8Array) => {
    if (source === 'stderr') return words.add(bytes)
    if (stream.destroyed) return
    // A promise that waits holds up tar, not us.
    if (!stream.push(bytes)) {
      wanted = Promise.withResolvers<void>()
      await wanted.promise
    }
  }
  const format = ['--format=posix', '--pax-option=delete=atime,delete=ctime,delete=mtime', '--numeric-owner', '--one-file-system']
  const command = ['tar', '--create', '--file=-', ...format, `--directory=${path}`, '.']
  run.exec({ command, timeoutMs }, onOutput, abort.signal).then(
    (exit) => {
      if (exit.exitCode === 0 || exit.exitCode === changedExitCode) stream.push(null)
      else stream.destroy(failure('the folder could not be packed', exit, words))
    },
    (error: Error) => stream.destroy(error),
  )
  return stream
}

/** Unpacks an archive in a folder, which is made when it is not there. tar refuses names that lead out of it. */
export async function unpackFolder(run: ArchiveRunner, path: string, archive: AsyncIterable<Uint8Array>, abort: AbortSignal): Promise<void> {
  const words = new LastWords()
  const script = 'mkdir -p -- "$1" && exec tar --extract --file=- --no-same-owner --preserve-permissions "--directory=$1"'
  const command = ['/bin/sh', '-c', script, 'sh', path]
  const exit = await run.exec({ command, stdin: archive, timeoutMs }, (source, bytes) => (source === 'stderr' ? words.add(bytes) : undefined), abort)
  if (exit.exitCode !== 0) throw failure('the archive could not be unpacked', exit, words)
}

class LastWords {
  #text = ''

  add(bytes: Uint8Array): void {
    this.#text = (this.#text + Buffer.from(bytes).toString('utf8')).slice(-keptWordsBytes)
  }

  get text(): string {
    return this.#text.trim()
  }
}

function failure(what: string, exit: ScriptExit & { timedOut: boolean }, words: LastWords): MagsError {
  if (exit.timedOut) return new MagsError('sandbox_failed', `${what} within an hour`)
  const reason = words.text || exit.reason || `tar ended with ${exit.exitCode}`
  return new MagsError('bad_request', `${what}: ${reason}`)
}
