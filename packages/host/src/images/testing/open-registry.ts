import { readFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'

/** As much of the distribution API as one image needs, out of a layout in a folder. */
export async function openRegistry(layoutDir: string): Promise<{ readonly address: string } & AsyncDisposable> {
  const index = JSON.parse(await readFile(join(layoutDir, 'index.json'), 'utf8')) as { manifests: { digest: string; mediaType: string }[] }
  const [top] = index.manifests
  const server: Server = createServer(async (request, response) => {
    const [, kind, reference = ''] = /^\/v2\/made\/(manifests|blobs)\/(.*)$/.exec(request.url ?? '') ?? []
    if (request.url === '/v2/') return void response.end('{}')
    const digest = kind === 'manifests' && reference === 'latest' ? top?.digest : reference
    const bytes = kind === undefined ? undefined : await readFile(join(layoutDir, 'blobs/sha256', digest?.slice(7) ?? '')).catch(() => undefined)
    if (bytes === undefined) {
      response.writeHead(404, { 'content-type': 'application/json' })
      return void response.end(JSON.stringify({ errors: [{ code: 'NAME_UNKNOWN', message: 'repository name not known to registry' }] }))
    }
    response.writeHead(200, { 'content-type': kind === 'manifests' ? (top?.mediaType ?? '') : 'application/octet-stream', 'content-length': bytes.length })
    response.end(request.method === 'HEAD' ? undefined : bytes)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const close = () => new Promise<void>((resolve) => server.close(() => resolve()))
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, [Symbol.asyncDispose]: close }
}
