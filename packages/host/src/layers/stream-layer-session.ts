import type { Duplex } from 'node:stream'
import { MagsError } from '@mags/protocol'
import { ContentOrder, decodeChanges, decodeEntries, decodeError, decodeReady } from './decode-layer-frames.ts'
import { encodeBare, encodeDataHead, encodeEntry, encodeOpen, encodePaths } from './encode-layer-frames.ts'
import { ask, dataLimitBytes, entriesLimit, layerVersion, tell } from './layer-frame-constants.ts'
import { LayerFrameSink } from './layer-frame-sink.ts'
import { type LayerFrame, LayerFrameSource } from './layer-frame-source.ts'
import { TreeOrder } from './layer-path.ts'
import { LayerProtocolError } from './layer-protocol-error.ts'
import type { LayerChange, LayerContent, LayerEntry, LayerSession, LayerWrite } from './layer-session.ts'

/** A worker looks at 2,000,000 entries or writes gigabytes of dirty pages out without a word, but not for that long; a guest's root can stop one for ever. */
const silenceLimitMs = 180_000

/**
 * The host's end of docs/layer-protocol.md over one byte stream. Everything that comes is hostile input. Memory is bounded by the stream's buffers and a frame: who does not take
 * the next batch holds the worker back.
 *
 *     opening ──READY──▶ idle ──a call──▶ busy ──its last answer──▶ idle
 *     any ──close(), an error, a loop over a call that is left early──▶ closed
 */
export class StreamLayerSession implements LayerSession {
  readonly #stream: Duplex
  readonly #source: LayerFrameSource
  readonly #sink: LayerFrameSink
  #state: 'idle' | 'busy' | 'closed' = 'busy'
  #failure: Error | undefined
  readonly #silenceMs: number
  #walked = false

  private constructor(stream: Duplex, silenceMs: number) {
    this.#stream = stream
    this.#silenceMs = silenceMs
    // Reading and writing tell of it, too; without a listener it would end the process.
    stream.on('error', (error) => this.#end(brokenStream(error)))
    stream.on('close', () => this.#end(new MagsError('sandbox_failed', 'the connection to the layer worker is gone')))
    this.#source = new LayerFrameSource(stream)
    this.#sink = new LayerFrameSink(stream)
  }

  /**
   * Takes the stream over. `folder` is the absolute path of what holds `u`, or empty when the worker knows. A worker that owes an answer and says nothing for `silenceMs` is given up. `only`: the one name at
   * the top that is looked at.
   */
  static async open(stream: Duplex, folder: string, silenceMs = silenceLimitMs, only?: string): Promise<StreamLayerSession> {
    const session = new StreamLayerSession(stream, silenceMs)
    try {
      await session.#send(encodeOpen(folder, only))
      const { type, payload } = await session.#nextInTime()
      if (type !== tell.ready) throw session.#unexpected(type, payload)
      const version = decodeReady(payload)
      if (version !== layerVersion) throw new LayerProtocolError(`version ${version}; this side speaks ${layerVersion}`)
      session.#state = 'idle'
      return session
    } catch (error) {
      throw session.#end(error)
    }
  }

  async *walk(): AsyncGenerator<readonly LayerEntry[]> {
    const order = new TreeOrder()
    let count = 0
    for await (const payload of this.#batches(ask.walk, tell.entries)) {
      const entries = decodeEntries(payload, order)
      count += entries.length
      checkCount(count)
      yield entries
    }
    if (!order.begun) throw this.#end(new LayerProtocolError('a walk without the root'))
    this.#walked = true
  }

  async *changes(): AsyncGenerator<readonly LayerChange[]> {
    if (!this.#walked) throw new MagsError('internal', 'changes of a layer were asked before a walk')
    let last: Buffer | undefined
    let count = 0
    for await (const payload of this.#batches(ask.changes, tell.changed)) {
      const decoded = decodeChanges(payload, last)
      last = decoded.last
      count += decoded.changes.length
      // Each path may be removed once and there once.
      checkCount(count / 2)
      yield decoded.changes
    }
  }

  async *read(paths: readonly Buffer[]): AsyncGenerator<LayerContent> {
    this.#begin()
    const order = new ContentOrder(paths.length)
    try {
      const sending = this.#sendPaths(paths)
      sending.catch((error: unknown) => this.#end(error))
      for (;;) {
        const { type, payload } = this.#source.tryNext() ?? (await this.#nextInTime())
        if (type === tell.data) yield order.data(payload)
        else if (type === tell.hole) yield order.hole(payload)
        else if (type === tell.end) yield order.end(payload)
        else if (type === tell.missing) yield order.missing(payload)
        else if (type === tell.done && order.complete) break
        else throw this.#unexpected(type, payload)
      }
      await sending
      this.#state = 'idle'
    } catch (error) {
      throw this.#end(error)
    } finally {
      this.#leave()
    }
  }

  async write(tree: AsyncIterable<LayerWrite>): Promise<void> {
    this.#begin()
    let sent = false
    try {
      // The one answer: at the end, or as soon as something cannot be written.
      const answer = this.#next().then(({ type, payload }) => {
        if (type !== tell.done) throw this.#unexpected(type, payload)
        if (!sent) throw new LayerProtocolError('an end before the end')
      })
      answer.catch((error: unknown) => this.#end(error))
      await this.#sendTree(tree)
      sent = true
      await this.#send(encodeBare(ask.writeEnd))
      await answer
      this.#state = 'idle'
    } catch (error) {
      throw this.#end(error)
    }
  }

  close() {
    this.#end(new MagsError('sandbox_failed', 'the layer session was closed'))
  }

  /** Asks and hands on the payloads of one type until the end. */
  async *#batches(question: number, type: number): AsyncGenerator<Buffer> {
    this.#begin()
    try {
      await this.#send(encodeBare(question))
      for (;;) {
        const frame = this.#source.tryNext() ?? (await this.#nextInTime())
        if (frame.type === tell.done && frame.payload.length === 0) break
        if (frame.type !== type) throw this.#unexpected(frame.type, frame.payload)
        if (frame.payload.length === 0) throw new LayerProtocolError('a batch of nothing')
        yield frame.payload
      }
      this.#state = 'idle'
    } catch (error) {
      throw this.#end(error)
    } finally {
      this.#leave()
    }
  }

  async #sendPaths(paths: readonly Buffer[]) {
    for (const bytes of encodePaths(paths)) await this.#sink.add(bytes)
    await this.#send(encodeBare(ask.readEnd))
  }

  async #sendTree(tree: AsyncIterable<LayerWrite>) {
    await this.#sink.add(encodeBare(ask.write))
    for await (const item of tree) {
      if (this.#failure) throw this.#failure
      if (item.kind === 'entry') {
        const room = this.#sink.add(encodeEntry(item.entry))
        if (room) await room
        continue
      }
      for (let at = 0; at < item.bytes.length; at += dataLimitBytes) {
        const bytes = item.bytes.subarray(at, at + dataLimitBytes)
        const head = this.#sink.add(encodeDataHead(item.offset + at, bytes.length))
        if (head) await head
        const room = this.#sink.add(bytes)
        if (room) await room
      }
    }
  }

  async #send(bytes: Buffer) {
    await this.#sink.add(bytes)
    await this.#sink.flush()
  }

  /** Not for `write`, whose one answer comes when all is written. */
  async #nextInTime(): Promise<LayerFrame> {
    const silent = new MagsError('sandbox_failed', `the layer worker has said nothing for ${this.#silenceMs / 1000} s`)
    const timer = setTimeout(() => this.#end(silent), this.#silenceMs)
    try {
      return await this.#next()
    } finally {
      clearTimeout(timer)
    }
  }

  async #next(): Promise<LayerFrame> {
    const frame = await this.#source.next()
    if (this.#failure) throw this.#failure
    if (frame === undefined) throw new MagsError('sandbox_failed', 'the layer worker ended in the middle of its work')
    return frame
  }

  /** Its own error, or one about what it said. */
  #unexpected(type: number, payload: Buffer): Error {
    return type === tell.error ? decodeError(payload) : new LayerProtocolError(`frame ${type} out of place`)
  }

  #begin() {
    if (this.#failure) throw this.#failure
    if (this.#state === 'busy') throw new MagsError('internal', 'a layer session does one thing at a time')
    this.#state = 'busy'
  }

  /** A loop was left: when that was before the last answer, what is under way belongs to nobody. */
  #leave() {
    if (this.#state === 'busy') this.close()
  }

  /** Returns why it ended first. */
  #end(error: unknown): Error {
    if (this.#failure) return this.#failure
    this.#failure = error instanceof Error ? error : new Error(String(error))
    this.#state = 'closed'
    this.#stream.destroy()
    return this.#failure
  }
}

function checkCount(count: number) {
  if (count > entriesLimit) throw new LayerProtocolError(`more than ${entriesLimit} entries`)
}

function brokenStream(error: Error): MagsError {
  return error instanceof MagsError ? error : new MagsError('sandbox_failed', `the connection to the layer worker broke: ${error.message}`, { cause: error })
}
