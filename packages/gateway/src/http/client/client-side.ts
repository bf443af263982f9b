import type { Duplex } from 'node:stream'
import type { OwnAnswer } from '../answers/own-answer.ts'
import type { ClientRequest } from '../request/client-request.ts'
import type { Field } from '../wire/fields.ts'
import type { ResponseHead } from '../wire/response-head.ts'

/** The client's end of one request, in whichever version of HTTP. What it is told to send it may gather until `flush`. */
export interface ClientSide {
  /** From now on the body goes to the exchange. */
  readBody(): void
  pauseBody(): void
  informational(head: ResponseHead): void
  head(head: ResponseHead): void
  data(bytes: Buffer): void
  end(trailers: readonly Field[]): void
  /** False when the exchange should wait for `clientDrained`. */
  flush(): boolean
  /** The whole answer, instead of one from a sandbox. */
  answer(answer: OwnAnswer): void
  /** The answer has begun and cannot be whole: ends so that nobody takes it for whole. */
  cut(): void
  /** Answers 101 and gives up the connection; only where an upgrade was asked for. `sent` is what the client sent since. */
  switchProtocol(head: ResponseHead): { readonly socket: Duplex; readonly sent: Buffer }
}

/** What a client's end tells the exchange of its request. */
export interface RequestEvents {
  bodyData(bytes: Buffer): void
  bodyEnd(trailers: readonly Field[]): void
  /** All was handed over that is there now. */
  bodyFlush(): void
  clientDrained(): void
  clientGone(): void
  /** Looks whether something takes too long; called about once a second. */
  tick(now: number): void
}

export type StartExchange = (client: ClientSide, request: ClientRequest) => RequestEvents
