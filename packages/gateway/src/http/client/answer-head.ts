import { STATUS_CODES } from 'node:http'
import type { OwnAnswer } from '../answers/own-answer.ts'
import { isHopByHop } from '../wire/body-framing.ts'
import type { ResponseHead } from '../wire/response-head.ts'

/** How the client is told where the body ends. */
export type AnswerFraming = 'none' | 'length' | 'chunked' | 'close'

/** Head of an answer from a sandbox as an HTTP/1.1 client gets it (latin1). */
export function answerHead(head: ResponseHead, framing: AnswerFraming, close: boolean): string {
  let text = statusLine(head)
  for (const { name, lower, value } of head.fields) {
    if (lower === 'content-length' ? framing === 'none' && mayHaveLength(head) : !isHopByHop(lower) && !head.connection.includes(lower))
      text += `${name}: ${value}\r\n`
  }
  if (framing === 'length' && head.body.kind === 'length') text += `Content-Length: ${head.body.length}\r\n`
  if (framing === 'chunked') text += 'Transfer-Encoding: chunked\r\n'
  return close ? `${text}Connection: close\r\n\r\n` : `${text}\r\n`
}

/** Head of an answer 1xx; 101 carries on with what both agreed on. */
export function informationalHead(head: ResponseHead): string {
  let text = statusLine(head)
  for (const { name, lower, value } of head.fields) {
    if (!isHopByHop(lower) && !head.connection.includes(lower)) text += `${name}: ${value}\r\n`
  }
  if (head.status === 101) text += `Connection: Upgrade\r\nUpgrade: ${head.upgrade}\r\n`
  return `${text}\r\n`
}

/** A whole answer of our own. */
export function ownAnswerText(answer: OwnAnswer, method: string, close: boolean): string {
  let text = `HTTP/1.1 ${answer.status} ${STATUS_CODES[answer.status] ?? ''}\r\nDate: ${new Date().toUTCString()}\r\nContent-Type: ${answer.contentType}\r\n`
  text += `Content-Length: ${Buffer.byteLength(answer.body)}\r\n`
  for (const [name, value] of answer.headers) text += `${name}: ${value}\r\n`
  if (close) text += 'Connection: close\r\n'
  return method === 'HEAD' ? `${text}\r\n` : `${text}\r\n${Buffer.from(answer.body).toString('latin1')}`
}

function statusLine({ status, reason }: ResponseHead): string {
  return `HTTP/1.1 ${status} ${reason}\r\n`
}

/** An answer to HEAD and a 304 say how long the body would be. */
function mayHaveLength({ status }: ResponseHead): boolean {
  return status >= 200 && status !== 204
}
