import type { FileHandle } from 'node:fs/promises'
import type { JobStatus, OutputSink } from '@mags/protocol'
import { RoomWait, type RoomWaitOptions } from '../state/room-wait.ts'
import { storageFaultOf } from '../state/storage-fault.ts'
import type { LogBytes } from './cursor.ts'
import { lineEnd } from './line-end.ts'
import { LineHold } from './line-hold.ts'
import { openLogFile, readRange, summarizeLog } from './log-file.ts'
import { LogTail } from './log-tail.ts'
import { anewFlag, encodeRecord, errorFlag, headerBytes, type LogRecord, limitFlag, maxPayloadBytes, partialFlag, recordBytes } from './record.ts'

export interface JobLogOptions {
  readonly path: string
  readonly maxBytes: number
  /** Wall clock, ms. */
  readonly clock: () => number
  /** Called once, when the first byte of output is in the file. */
  readonly onFirstOutput?: () => void
  /** How it waits while the disk is full. */
  readonly room?: Pick<RoomWaitOptions, 'firstWaitMs' | 'longestWaitMs' | 'onFull'>
}

/** How a job ended, for those who follow its log. */
export interface LogEnd {
  readonly status: JobStatus
  readonly exitCode: number | null
}

interface Stream {
  /** Bytes of the stream seen, put in line as records, and safe in the file (as a record or provisionally). */
  received: number
  queued: number
  safe: number
  readonly hold: LineHold
  waiting: { readonly upTo: number; readonly resolve: () => void }[]
}

const largestWrite = 1024 * 1024

/**
 * The log of a job that waits or runs: one writer, any number of followers.
 *
 * States: new → open (first write or `open`) → ended (`end`) or detached (`close`); failed when the file cannot be written, then output is dropped and `fault` says why. While the disk is full it is stuck, not failed:
 * nothing is acknowledged, so the sandbox keeps its output (and a program that writes more than it can keep stands still), and the write is tried until it works or `giveUp` or `close` is called.
 * Everything written stays readable in all states. One write is under way at a time; what comes meanwhile is written together by the next.
 *
 * The unfinished last line of a stream is written at once too, behind the last record readers may see, and written again as part of a whole
 * line when its end comes in time: so output is safe (and acknowledged) without delay, and rows are not torn where the chunks happen to end.
 */
export class JobLog implements LogBytes {
  readonly #options: JobLogOptions
  readonly #streams: { readonly stdout: Stream; readonly stderr: Stream }
  #file: Promise<FileHandle> | undefined
  #size = 0
  /** Where the file ends: after #size and what is provisional. */
  #fileEnd = 0
  /** Bytes in the file and in line for it. */
  #counted = 0
  #full = false
  #queue: LogRecord[] = []
  #heldChanged = false
  #writing: Promise<void> | undefined
  readonly #tail = new LogTail()
  readonly #listeners = new Set<() => void>()
  #firstOutput: (() => void) | undefined
  #fault: Error | undefined
  readonly #room: RoomWait
  #scriptExit: { exitCode: number; position: number } | undefined
  #end: LogEnd | undefined
  #detached = false
  /** Which try of the job its output is of. */
  #attempt = 1

  constructor(options: JobLogOptions) {
    this.#options = options
    this.#room = new RoomWait(options.room)
    this.#firstOutput = options.onFirstOutput
    this.#streams = { stdout: this.#makeStream('stdout'), stderr: this.#makeStream('stderr') }
  }

  /** Opens the file, cutting off what a crash left unfinished at its end. Optional: the first write does it too. */
  async open(): Promise<void> {
    this.#file ??= this.#openFile()
    const opening = this.#file
    try {
      await opening
    } catch (error) {
      // The next write tries it anew.
      if (storageFaultOf(error) !== undefined && this.#file === opening) this.#file = undefined
      throw error
    }
  }

  /** Takes output of the sandbox; settles once it is in the file. Bytes that are there already (after an adoption) are skipped. What still comes of it after `beginAnew` is dropped. */
  get sink(): OutputSink {
    const attempt = this.#attempt
    return async (chunk) => (attempt === this.#attempt ? await this.#take(chunk) : 'discard')
  }

  /** Calls this once, when the next output is in the file. */
  onFirstOutput(listener: () => void): void {
    this.#firstOutput = listener
  }

  /** The job is tried again, with this as a row before: the streams of the next try begin at 0, and followers go on. */
  async beginAnew(text: string): Promise<void> {
    if (this.#end || this.#detached) return
    this.#attempt++
    // Opened only afterwards, as after a restart, it would set the streams to where the former try ended. That it cannot be is for the write to tell.
    await this.#room.run(() => this.open()).catch(() => undefined)
    await this.flush()
    for (const stream of [this.#streams.stdout, this.#streams.stderr]) Object.assign(stream, { received: 0, queued: 0, safe: 0 })
    this.#firstOutput = undefined
    this.#addSystemRecord(text, errorFlag | anewFlag)
    await this.flush()
  }

  /** Adds rows of the system's own, after the output so far. Settles once they are in the file, or it is known that the disk is full: then they are as soon as there is room. */
  async system(text: string, level: 'info' | 'error'): Promise<void> {
    if (this.#end || this.#detached) return
    this.#releaseHeld()
    this.#addSystemRecord(text, level === 'error' ? errorFlag : 0)
    await Promise.race([this.flush(), this.sticking])
  }

  /** Settles once everything so far, unfinished lines included, is in the file (or it failed). Waits while the disk is full. */
  async flush(): Promise<void> {
    this.#releaseHeld()
    while (this.#writing) await this.#writing
  }

  /** Why nothing can be written at the moment, and what to do. */
  get stuck(): string | undefined {
    return this.#room.words
  }

  /** Settles when it is stuck. */
  get sticking(): Promise<void> {
    return this.#room.sticking
  }

  /** From now on a full disk is a fault like any other: what cannot be written is lost. */
  giveUp(): void {
    this.#room.giveUp()
  }

  /** The script of a persistent job ended; its sandbox lives on. */
  async markScriptExit(exitCode: number): Promise<void> {
    await this.flush()
    this.#scriptExit ??= { exitCode, position: this.#size }
    this.#notify()
  }

  /** The job is over and its status stored: followers finish. */
  async end(end: LogEnd): Promise<void> {
    await this.flush()
    this.#end ??= end
    this.#settleAll()
    this.#notify()
    await this.close()
  }

  /** Closes the file. Without an end before, output that still comes is not acknowledged. */
  async close(): Promise<void> {
    this.#detached = true
    this.giveUp()
    await this.flush()
    const file = await this.#file?.catch(() => undefined)
    this.#file = Promise.reject(new Error('the log is closed'))
    this.#file.catch(() => undefined)
    await file?.close()
  }

  /** Bytes of each stream that are in the file, for `HostApi.adopt`. */
  safeOffsets(): { stdout: number; stderr: number } {
    return { stdout: this.#streams.stdout.safe, stderr: this.#streams.stderr.safe }
  }

  get ended(): LogEnd | undefined {
    return this.#end
  }

  get scriptExit(): { exitCode: number; position: number } | undefined {
    return this.#scriptExit
  }

  /** Why output was lost, when the file could not be written. */
  get fault(): Error | undefined {
    return this.#fault
  }

  /** Calls `listener` after each change of size, script exit or end, until the returned function is called. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  size(): number {
    return this.#size
  }

  async read(position: number, length: number): Promise<Buffer> {
    return this.#tail.from(position) ?? (await readRange(this.#options.path, position, length))
  }

  async #take(chunk: Parameters<OutputSink>[0]): ReturnType<OutputSink> {
    if (chunk.source === 'system') {
      await this.system(Buffer.from(chunk.bytes).toString('utf8').trimEnd(), 'info')
      return undefined
    }
    if (this.#end) return 'discard'
    // Not acknowledged: the sandbox keeps it for the next daemon.
    if (this.#detached) return await new Promise<never>(() => undefined)
    const stream = this.#streams[chunk.source]
    if (chunk.offset > stream.received) this.#skipTo(stream, chunk.offset)
    const fresh = chunk.bytes.subarray(Math.min(chunk.bytes.length, stream.received - chunk.offset))
    stream.received += fresh.length
    if (!this.#closed && fresh.length > 0) {
      stream.hold.push(fresh)
      this.#heldChanged = true
      this.#writing ??= this.#writeAll()
    }
    const upTo = chunk.offset + chunk.bytes.length
    if (!this.#closed && stream.safe < upTo) await new Promise<void>((resolve) => stream.waiting.push({ upTo, resolve }))
    return this.#closed ? 'discard' : undefined
  }

  get #closed(): boolean {
    return this.#full || this.#fault !== undefined || this.#end !== undefined
  }

  #makeStream(source: 'stdout' | 'stderr'): Stream {
    const hold = new LineHold({ emit: (block, partial) => this.#addOutput(source, block, partial) })
    return { received: 0, queued: 0, safe: 0, hold, waiting: [] }
  }

  async #openFile(): Promise<FileHandle> {
    const { path } = this.#options
    const file = await openLogFile(path)
    try {
      const { size } = await file.stat()
      if (size > 0) {
        const summary = await summarizeLog(path)
        if (summary.size < size) await file.truncate(summary.size)
        for (const name of ['stdout', 'stderr'] as const) this.#skipTo(this.#streams[name], summary[name])
        this.#size = summary.size
        this.#fileEnd = summary.size
        this.#counted += summary.size
        this.#full = summary.limitReached
      }
      return file
    } catch (error) {
      await file.close()
      throw error
    }
  }

  #skipTo(stream: Stream, offset: number) {
    stream.hold.flush()
    stream.received = offset
    stream.queued = offset
    if (stream.waiting.length === 0) stream.safe = offset
  }

  #releaseHeld() {
    this.#streams.stdout.hold.flush()
    this.#streams.stderr.hold.flush()
  }

  #addOutput(source: 'stdout' | 'stderr', block: Buffer, partial: boolean) {
    const stream = this.#streams[source]
    let at = 0
    while (at < block.length && !this.#closed) {
      const room = this.#options.maxBytes - this.#counted - headerBytes
      const wanted = Math.min(block.length - at, maxPayloadBytes)
      const fits = Math.min(wanted, room)
      const end = fits <= 0 ? at : lineEnd(block, at, at + fits)
      if (end > at) {
        const cut = end < block.length ? block[end - 1] !== 10 : partial
        this.#enqueue({
          source,
          flags: cut ? partialFlag : 0,
          timeMs: this.#options.clock(),
          streamOffset: stream.queued,
          payload: Buffer.from(block.subarray(at, end)),
        })
        stream.queued += end - at
        at = end
      }
      if (fits < wanted) this.#reachLimit()
    }
  }

  #reachLimit() {
    this.#full = true
    const mib = this.#options.maxBytes / (1024 * 1024)
    const size = mib >= 1 ? `${Math.round(mib * 10) / 10} MiB` : `${this.#options.maxBytes} bytes`
    this.#addSystemRecord(`output limit of ${size} reached; the rest is dropped`, errorFlag | limitFlag)
  }

  #addSystemRecord(text: string, flags: number) {
    const payload = Buffer.from(`${text.slice(0, 8192)}\n`)
    this.#enqueue({ source: 'system', flags, timeMs: this.#options.clock(), streamOffset: 0, payload })
  }

  #enqueue(record: LogRecord) {
    this.#counted += recordBytes(record)
    this.#queue.push(record)
    this.#writing ??= this.#writeAll()
  }

  async #writeAll(): Promise<void> {
    try {
      await this.#room.run(() => this.open())
      do {
        this.#heldChanged = false
        const batch = this.#takeBatch()
        await this.#room.run(() => this.#writeBatch(batch))
      } while (this.#queue.length > 0 || this.#heldChanged)
    } catch (error) {
      await this.#fail(error as Error)
    } finally {
      this.#writing = undefined
      if (this.#closed && (!this.#detached || this.#end)) this.#settleAll()
    }
  }

  #takeBatch(): LogRecord[] {
    let bytes = 0
    let count = 0
    for (const record of this.#queue) {
      bytes += recordBytes(record)
      if (count > 0 && bytes > largestWrite) break
      count++
    }
    return this.#queue.splice(0, count)
  }

  async #writeBatch(batch: readonly LogRecord[]): Promise<void> {
    const provisional = this.#queue.length > 0 ? [] : this.#heldRecords()
    const block = Buffer.allocUnsafe([...batch, ...provisional].reduce((sum, record) => sum + recordBytes(record), 0))
    let committed = 0
    for (const record of batch) committed = encodeRecord(record, block, committed)
    let end = committed
    for (const record of provisional) end = encodeRecord(record, block, end)
    const file = await this.#file
    if (file === undefined) return
    for (let done = 0; done < end; ) {
      const { bytesWritten } = await file.write(block, done, end - done, this.#size + done)
      done += bytesWritten
      // A full disk takes a part of it.
      this.#fileEnd = Math.max(this.#fileEnd, this.#size + done)
    }
    if (this.#size + end < this.#fileEnd) await file.truncate(this.#size + end)
    this.#fileEnd = this.#size + end
    this.#tail.add(this.#size, block.subarray(0, committed))
    this.#size += committed
    for (const record of [...batch, ...provisional]) {
      if (record.source === 'system') continue
      this.#streams[record.source].safe = record.streamOffset + record.payload.length
      this.#firstOutput?.()
      this.#firstOutput = undefined
    }
    for (const stream of [this.#streams.stdout, this.#streams.stderr]) {
      while (stream.waiting[0] && stream.waiting[0].upTo <= stream.safe) stream.waiting.shift()?.resolve()
    }
    if (committed > 0) this.#notify()
  }

  #heldRecords(): LogRecord[] {
    if (this.#closed) return []
    const sources = ['stdout', 'stderr'] as const
    return sources.flatMap((source) => {
      const { hold, queued } = this.#streams[source]
      const payload = hold.held
      return payload.length === 0 ? [] : [{ source, flags: partialFlag, timeMs: this.#options.clock(), streamOffset: queued, payload }]
    })
  }

  async #fail(error: Error): Promise<void> {
    this.#fault ??= error
    this.#queue = []
    // What a failed write left behind would hide all later records.
    const file = await this.#file?.catch(() => undefined)
    await file?.truncate(this.#size).catch(() => undefined)
    // What was not acknowledged when the server ends comes again to the next one.
    if (!this.#detached || this.#end) this.#settleAll()
    this.#notify()
  }

  #settleAll() {
    for (const stream of [this.#streams.stdout, this.#streams.stderr]) {
      for (const { resolve } of stream.waiting.splice(0)) resolve()
    }
  }

  #notify() {
    for (const listener of this.#listeners) listener()
  }
}
