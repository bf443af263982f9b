import { connect } from 'node:net'
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
  socket.write(requestBytes(request))
  try {
    return await readResponse(socket)
  } catch (error) {
    socket.destroy()
    throw error
  }
}

function requestBytes({ method, url, headers, body }: TransportRequest): Buffer {
  const content = Buffer.from(body ?? '', 'utf8')
  const lines = [`${method} ${url.pathname}${url.search} HTTP/1.1`, `host: ${url.host}`, 'connection: close']
  for (const [name, value] of Object.entries(headers)) {
    if (/[\r\n\0]/.test(name + value)) throw new TypeError(`The value of the header ${name} must be one line.`)
    lines.push(`${name}: ${value}`)
  }
  if (body !== undefined || method !== 'GET') lines.push(`content-length: ${content.length}`)
  return Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), content])
}
