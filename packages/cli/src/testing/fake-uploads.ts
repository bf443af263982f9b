import type { ServerResponse } from 'node:http'
import type { SeenRequest } from './fake-server.ts'
import { sendJson } from './send-json.ts'

/** Uploaded files, by id. */
export class FakeUploads {
  readonly files = new Map<string, { readonly name: string; readonly content: string }>()
  #count = 0

  answer({ method, path, bytes }: SeenRequest, response: ServerResponse): void {
    const id = path.split('/')[2] ?? ''
    if (method === 'POST') {
      const [, name = '', content = ''] = /filename="([^"]*)"\r\n.*?\r\n\r\n(.*)\r\n--/s.exec(bytes.toString('utf8')) ?? []
      this.#count += 1
      const fileId = `file-${this.#count}`
      this.files.set(fileId, { name, content })
      sendJson(response, 201, { file_id: fileId, file_name: name, size: Buffer.byteLength(content) })
    } else if (method === 'DELETE' && this.files.delete(id)) sendJson(response, 200, { success: true, message: 'File deleted' })
    else if (method === 'GET' && id === '') {
      const times = { created_at: '2026-01-01T00:00:00.000Z', last_used_at: '2026-01-02T00:00:00.000Z' }
      const files = [...this.files].map(([file_id, file]) => ({ file_id, file_name: file.name, size: file.content.length, ...times }))
      sendJson(response, 200, { files, total: files.length, page: 1, page_size: 20 })
    } else sendJson(response, 404, { error: `no file '${id}'`, code: 'not_found' })
  }
}
