import { MagsError } from '@mags/protocol'
import { AgentProtocolError } from './agent-protocol-error.ts'
import { decodeReply } from './decode-frames.ts'
import { encodeRequest } from './encode-frames.ts'
import type { RequestOp } from './frame-constants.ts'
import type { PayloadReader } from './payload-reader.ts'
import type { PayloadWriter } from './payload-writer.ts'
import { requestError } from './request-error.ts'

interface PendingRequest {
  readonly what: string
  readonly decode: (reader: PayloadReader) => void
  readonly reject: (error: Error) => void
}

export interface AgentCall<T> {
  readonly op: RequestOp
  /** For the error message: `read /etc/passwd`. */
  readonly what: string
  readonly write?: (writer: PayloadWriter) => void
  readonly decode: (reader: PayloadReader) => T
  /** Without it the answer may take as long as it takes. */
  readonly timeoutMs?: number
}

/** Numbers requests and matches the replies. A request given up keeps its number until its reply came. */
export class AgentRequests {
  readonly #send: (frame: Buffer) => void
  readonly #pending = new Map<number, PendingRequest>()
  #next = 0
  #lost: Error | undefined

  constructor(send: (frame: Buffer) => void) {
    this.#send = send
  }

  call<T>(call: AgentCall<T>): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    promise.catch(() => undefined)
    if (this.#lost) {
      reject(this.#lost)
      return promise
    }
    let timer: NodeJS.Timeout | undefined
    const pending: PendingRequest = {
      what: call.what,
      decode: (reader) => {
        clearTimeout(timer)
        const value = call.decode(reader)
        reader.end()
        resolve(value)
      },
      reject: (error) => {
        clearTimeout(timer)
        reject(error)
      },
    }
    try {
      const number = this.#number()
      this.#send(encodeRequest(number, call.op, call.write ?? (() => undefined)))
      this.#pending.set(number, pending)
    } catch (error) {
      reject(error)
      return promise
    }
    if (call.timeoutMs !== undefined) {
      timer = setTimeout(() => reject(new MagsError('sandbox_failed', `${call.what}: the sandbox did not answer within ${call.timeoutMs} ms`)), call.timeoutMs)
    }
    return promise
  }

  onReply(number: number, payload: Buffer) {
    const pending = this.#pending.get(number)
    if (pending === undefined) throw new AgentProtocolError(`a reply to request ${number}, which is not open`)
    this.#pending.delete(number)
    try {
      const { errno, result } = decodeReply(payload)
      if (errno === 0) pending.decode(result)
      else pending.reject(requestError(pending.what, errno))
    } catch (error) {
      if (error instanceof Error) pending.reject(error)
      throw error
    }
  }

  onLost(error: Error) {
    this.#lost = error
    for (const pending of this.#pending.values()) pending.reject(error)
    this.#pending.clear()
  }

  #number(): number {
    do this.#next = this.#next === 0xffff_ffff ? 1 : this.#next + 1
    while (this.#pending.has(this.#next))
    return this.#next
  }
}
