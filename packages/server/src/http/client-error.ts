import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { errorCatalogue, MagsError } from '@mags/protocol'
import { errorBody } from './error-answer.ts'

/** Answers what is no request at all, or never becomes a whole one: there is only the socket to write to. */
export function answerClientError(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const known = describe(error)
  const { status } = errorCatalogue[known.code]
  const body = JSON.stringify(errorBody(known))
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    'Content-Type: application/json; charset=utf-8',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
  ]
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy())
}

function describe(error: Error & { code?: string }): MagsError {
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') return new MagsError('request_timeout', 'the request did not arrive whole in time')
  if (error.code === 'HPE_HEADER_OVERFLOW') return new MagsError('too_large', 'the headers are over 16 KiB')
  return new MagsError('bad_request', 'this is not a valid HTTP request')
}
