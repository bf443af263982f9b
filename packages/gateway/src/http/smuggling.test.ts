import { describe, expect, it } from 'vitest'
import { FakeDirectory } from './testing/fake-directory.ts'
import { openRawUpstream, openTestClient, openTestGateway } from './testing/open-test-gateway.ts'

const host = 'Host: web.apps.localhost\r\n'
const get = (line: string, rest = '') => `${line}\r\n${host}${rest}\r\n`
const post = (headers: string, body = '') => `POST / HTTP/1.1\r\n${host}${headers}\r\n${body}`
const chunked = (body: string) => post('Transfer-Encoding: chunked\r\n', body)
const many = Array.from({ length: 101 }, (_, i) => `X-${i}: 1\r\n`).join('')

/** What two readers could take differently, by name. */
const refused: [name: string, request: string, status?: number][] = [
  ['Content-Length and Transfer-Encoding', post('Content-Length: 6\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\nG')],
  ['Transfer-Encoding and Content-Length', post('Transfer-Encoding: chunked\r\nContent-Length: 4\r\n', '5c\r\n')],
  ['Content-Length twice, different', post('Content-Length: 3\r\nContent-Length: 4\r\n', 'abcd')],
  ['Content-Length twice, equal', post('Content-Length: 3\r\nContent-Length: 3\r\n', 'abc')],
  ['Content-Length as a list', post('Content-Length: 3, 3\r\n', 'abc')],
  ['Content-Length with a sign', post('Content-Length: +3\r\n', 'abc')],
  ['Content-Length negative', post('Content-Length: -1\r\n')],
  ['Content-Length in hex', post('Content-Length: 0x3\r\n', 'abc')],
  ['Content-Length with a blank inside', post('Content-Length: 1 0\r\n', 'a')],
  ['Content-Length with a fraction', post('Content-Length: 3.0\r\n', 'abc')],
  ['Content-Length without a number', post('Content-Length:\r\n')],
  ['Content-Length over what a number holds', post('Content-Length: 99999999999999999999\r\n', 'a')],
  ['Content_Length', post('Content_Length: 3\r\n', 'abc')],
  ['Transfer-Encoding twice', post('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n')],
  ['Transfer-Encoding chunked and identity', post('Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n', '0\r\n\r\n')],
  ['Transfer-Encoding xchunked', post('Transfer-Encoding: xchunked\r\n', '0\r\n\r\n')],
  ['Transfer-Encoding identity', post('Transfer-Encoding: identity\r\n', '0\r\n\r\n')],
  ['Transfer-Encoding gzip, chunked', post('Transfer-Encoding: gzip, chunked\r\n', '0\r\n\r\n')],
  ['Transfer-Encoding chunked, chunked', post('Transfer-Encoding: chunked, chunked\r\n', '0\r\n\r\n')],
  ['Transfer-Encoding in other letters', post('Transfer-Encoding: cHuNkEd\r\n', '0\r\n\r\n')],
  ['Transfer-Encoding in quotes', post('Transfer-Encoding: "chunked"\r\n', '0\r\n\r\n')],
  ['Transfer-Encoding with a vertical tab', post('Transfer-Encoding: \x0bchunked\r\n', '0\r\n\r\n')],
  ['Transfer-Encoding with a NUL', post('Transfer-Encoding: chunked\0\r\n', '0\r\n\r\n')],
  ['Transfer-Encoding before HTTP/1.1', `POST / HTTP/1.0\r\n${host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
  ['Transfer_Encoding', post('Transfer_Encoding: chunked\r\n', '0\r\n\r\n')],
  ['a blank before the colon', post('Transfer-Encoding : chunked\r\n', '0\r\n\r\n')],
  ['a tab before the colon', post('Content-Length\t: 3\r\n', 'abc')],
  ['a folded line', get('GET / HTTP/1.1', 'X: a\r\n b\r\n')],
  ['a folded line with a tab', post('Transfer-Encoding:\r\n\tchunked\r\n', '0\r\n\r\n')],
  ['a first header line with a blank before it', `GET / HTTP/1.1\r\n ${host}\r\n`],
  ['lines that end with LF', `GET / HTTP/1.1\nHost: web.apps.localhost\n\n`],
  ['one line that ends with LF', `GET / HTTP/1.1\r\nX: y\n${host}\r\n`],
  ['an LF inside a value', get('GET / HTTP/1.1', 'X: a\nTransfer-Encoding: chunked\r\n')],
  ['a CR inside a value', get('GET / HTTP/1.1', 'X: a\rTransfer-Encoding: chunked\r\n')],
  ['a NUL inside a value', get('GET / HTTP/1.1', 'X: a\0b\r\n')],
  ['a DEL inside a value', get('GET / HTTP/1.1', 'X: a\x7fb\r\n')],
  ['a header without a colon', get('GET / HTTP/1.1', 'Nonsense\r\n')],
  ['a header without a name', get('GET / HTTP/1.1', ': x\r\n')],
  ['a name that is not a token', get('GET / HTTP/1.1', 'X(y): x\r\n')],
  ['a name with a byte over 127', get('GET / HTTP/1.1', 'X\xe9: x\r\n')],
  ['no Host', 'GET / HTTP/1.1\r\nX: y\r\n\r\n'],
  ['no Host in HTTP/1.0', 'GET / HTTP/1.0\r\n\r\n'],
  ['two Hosts', get('GET / HTTP/1.1', 'Host: other.apps.localhost\r\n')],
  ['the same Host twice', get('GET / HTTP/1.1', host)],
  ['a Host list', 'GET / HTTP/1.1\r\nHost: web.apps.localhost, evil\r\n\r\n'],
  ['a Host with a user', 'GET / HTTP/1.1\r\nHost: a@web.apps.localhost\r\n\r\n'],
  ['a Host with a path', 'GET / HTTP/1.1\r\nHost: web.apps.localhost/x\r\n\r\n'],
  ['a Host with a port that is none', 'GET / HTTP/1.1\r\nHost: web.apps.localhost:0x50\r\n\r\n'],
  ['a Host with two final dots', 'GET / HTTP/1.1\r\nHost: web.apps.localhost..\r\n\r\n'],
  ['another host in the target', get('GET http://evil.example/ HTTP/1.1')],
  ['a user in the target', get('GET http://a@web.apps.localhost/ HTTP/1.1')],
  ['another scheme in the target', get('GET ftp://web.apps.localhost/ HTTP/1.1')],
  ['a relative target', get('GET index.html HTTP/1.1')],
  ['a fragment in the target', get('GET /#x HTTP/1.1')],
  ['a NUL in the target', get('GET /\0 HTTP/1.1')],
  ['a byte over 127 in the target', get('GET /\xe9 HTTP/1.1')],
  ['a star without OPTIONS', get('GET * HTTP/1.1')],
  ['two blanks in the request line', get('GET  / HTTP/1.1')],
  ['a tab in the request line', get('GET\t/ HTTP/1.1')],
  ['a blank behind the version', get('GET / HTTP/1.1 ')],
  ['no version', get('GET /')],
  ['a version in small letters', get('GET / http/1.1')],
  ['HTTP/1.2', get('GET / HTTP/1.2'), 505],
  ['HTTP/2.0', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 505],
  ['a method that is not a token', get('G@T / HTTP/1.1')],
  ['CONNECT', get('CONNECT web.apps.localhost:443 HTTP/1.1'), 405],
  ['TRACE', get('TRACE / HTTP/1.1'), 405],
  ['an empty line first', `\r\n${get('GET / HTTP/1.1')}`],
  ['a blank first', ` ${get('GET / HTTP/1.1')}`],
  ['an expectation nobody knows', post('Expect: 200-ok\r\nContent-Length: 1\r\n', 'a'), 417],
  ['Connection that names Host', get('GET / HTTP/1.1', 'Connection: host\r\n')],
  ['Connection that is no list of tokens', get('GET / HTTP/1.1', 'Connection: a b\r\n')],
  ['more headers than are taken', get('GET / HTTP/1.1', many), 431],
  ['a head over 64 KiB', get('GET / HTTP/1.1', `X: ${'x'.repeat(70_000)}\r\n`), 431],
  ['a chunk size that is none', chunked('g\r\n\r\n0\r\n\r\n')],
  ['a chunk without a size', chunked('\r\nabc\r\n0\r\n\r\n')],
  ['a chunk size with 0x', chunked('0x3\r\nabc\r\n0\r\n\r\n')],
  ['a chunk size with a sign', chunked('+3\r\nabc\r\n0\r\n\r\n')],
  ['a chunk size with a blank before it', chunked(' 3\r\nabc\r\n0\r\n\r\n')],
  ['a chunk size with a blank behind it', chunked('3 \r\nabc\r\n0\r\n\r\n')],
  ['a chunk size that is too long', chunked('00000000000000003\r\nabc\r\n0\r\n\r\n')],
  ['a chunk extension', chunked('3;x=y\r\nabc\r\n0\r\n\r\n')],
  ['a chunk extension with an LF', chunked('3;\nx\r\nabc\r\n0\r\n\r\n')],
  ['a chunk size that ends with LF', chunked('3\nabc\r\n0\r\n\r\n')],
  ['a chunk that ends with LF', chunked('3\r\nabc\n0\r\n\r\n')],
  ['a chunk that is longer than its size', chunked('3\r\nabcd\r\n0\r\n\r\n')],
  ['a chunk that ends with two other bytes', chunked('3\r\nabcXX0\r\n\r\n')],
  ['a last chunk that ends with LF', chunked('0\n\n')],
  ['a trailer that ends with LF', chunked('0\r\nX: y\n\r\n')],
  ['a trailer with a blank before the colon', chunked('0\r\nX : y\r\n\r\n')],
  ['a trailer that is folded', chunked('0\r\nX: y\r\n z\r\n\r\n')],
]

describe('what is ambiguous', () => {
  it.each(refused)('%s is refused, closes the connection and reaches nobody', async (_name, request, status = 400) => {
    const upstream = await openRawUpstream(() => {})
    const gateway = await openTestGateway(new FakeDirectory(upstream.port))
    const client = await openTestClient(gateway)
    client.send(request)
    const answer = await client.untilClosed()
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `))
    expect(answer).toContain('Connection: close\r\n')
    expect(answer.match(/HTTP\/1\.1 \d/g)).toHaveLength(1)
    expect(upstream.received.join('')).toBe('')
  })

  it('is refused behind a good request on the same connection, too', async () => {
    const upstream = await openRawUpstream((socket) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'))
    const gateway = await openTestGateway(new FakeDirectory(upstream.port))
    const client = await openTestClient(gateway)
    client.send(`${get('GET /first HTTP/1.1')}${post('Content-Length: 3\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n')}${get('GET /third HTTP/1.1')}`)
    const answer = await client.untilClosed()
    expect(answer.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 400'])
    expect(upstream.received.join('').match(/^[A-Z]+ \S+ HTTP/gm)).toEqual(['GET /first HTTP'])
  })
})
