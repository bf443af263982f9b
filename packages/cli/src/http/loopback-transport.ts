import { connect, type Socket } from 'node:net'
import { fetchTransport, isLoopback, type Transport, type TransportRequest } from '@mags/sdk'
import { readResponse } from './read-response.ts'

/**
 * HTTP to a server on this machine over a plain socket, a connection per request: loading the platform's fetch costs more than the rest
 * of `mags run` together. Every other address goes through fetch.
 */
export const loopbackTransport: Transport = async (request) => {
  if (request.url.protocol !== 'http:' || !isLoopback(request.url.hostname)) return await fetchTransport(request)
  request.signal.throwIfAborted()
  const socket = connect({ host: request.url.hostname.replace(/^\[|\]$/g, ''), port: Number(request.url.port || 80), noDelay: true })
  // Failures reach us through the reading; one that comes after it concerns nobody.
  socket.on('error', () => undefined)
  const onAbort = () => socket.destroy(request.signal.reason)
  request.signal.addEventListener('abort', onAbort, { once: true })
  socket.once('close', () => request.signal.removeEventListener('abort', onAbort))
  const { body } = request
  const answered = new AbortController()
  try {
    if (body === undefined || typeof body === 'string') socket.write(requestBytes(request, body))
    else {
      const chunked = !('content-length' in request.headers)
      // Without `connection: close`: a server that hangs up before it has read all resets the connection (RFC 1122, 4.2.2.13), and its answer may be lost.
      socket.write(headBytes(request, chunked ? ['transfer-encoding: chunked'] : []))
      // A server may refuse before all is sent; so the answer is read meanwhile, and the rest of the body then stays here.
      sendParts(socket, body, chunked, answered.signal).catch((error: unknown) => socket.destroy(asError(error)))
    }
    return await readResponse(socket)
  } catch (error) {
    socket.destroy()
    throw error
  } finally {
    answered.abort()
  }
}

async function sendParts(socket: Socket, parts: AsyncIterable<Uint8Array>, chunked: boolean, answered: AbortSignal): Promise<void> {
  for await (const part of parts) {
    if (answered.aborted || socket.destroyed) return
    if (part.length === 0) continue
    if (chunked) socket.write(`${part.length.toString(16)}\r\n`, 'latin1')
    const room = socket.write(part)
    if (chunked) socket.write('\r\n', 'latin1')
    if (!room && !answered.aborted) await roomToWrite(socket, answered)
  }
  if (chunked && !answered.aborted) socket.write('0\r\n\r\n', 'latin1')
}

/** Settles when there is room again, or no need of it any more. */
function roomToWrite(socket: Socket, answered: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      socket.off('drain', done)
      socket.off('close', done)
      answered.removeEventListener('abort', done)
      resolve()
    }
    socket.on('drain', done)
    socket.on('close', done)
    answered.addEventListener('abort', done)
    if (answered.aborted || socket.destroyed) done()
  })
}

function requestBytes(request: TransportRequest, body: string | undefined): Buffer {
  const content = Buffer.from(body ?? '', 'utf8')
  const length = body !== undefined || request.method !== 'GET' ? [`content-length: ${content.length}`] : []
  return Buffer.concat([headBytes(request, ['connection: close', ...length]), content])
}

function headBytes({ method, url, headers }: TransportRequest, more: readonly string[]): Buffer {
  const lines = [`${method} ${url.pathname}${url.search} HTTP/1.1`, `host: ${url.host}`, ...more]
  for (const [name, value] of Object.entries(headers)) {
    if (/[\r\n\0]/.test(name + value)) throw new TypeError(`The value of the header ${name} must be one line.`)
    lines.push(`${name}: ${value}`)
  }
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
}

function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown))
}
