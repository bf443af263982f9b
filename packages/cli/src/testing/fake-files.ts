import type { ServerResponse } from 'node:http'
import type { SeenRequest } from './fake-server.ts'
import { sendJson } from './send-json.ts'

/** The files of a sandbox: content by path, and folders as the archives they are sent as. */
export class FakeFiles {
  readonly files = new Map<string, Buffer>()
  readonly folders = new Map<string, Buffer>()

  answer({ method, path: route, query, bytes }: SeenRequest, response: ServerResponse): void {
    const path = (query.get('path') ?? '').replace(/(?<=.)\/\.?$/, '')
    const file = this.files.get(path)
    const folder = this.folders.get(path)
    const isArchive = route.endsWith('/archive')
    if (method === 'PUT') {
      const kind = isArchive ? this.folders : this.files
      kind.set(path, bytes)
      sendJson(response, 200, { success: true, message: 'written' })
    } else if (file === undefined && folder === undefined) sendJson(response, 404, { error: `${path}: no such file`, code: 'not_found' })
    else if (route.endsWith('/list')) {
      if (folder === undefined) sendJson(response, 400, { error: `${path}: is not a folder`, code: 'bad_request' })
      else sendJson(response, 200, { path, entries: [], truncated: false })
    } else {
      const content = isArchive ? folder : file
      response.writeHead(200, { 'x-mags-mode': '0750' })
      response.end(content)
    }
  }
}
