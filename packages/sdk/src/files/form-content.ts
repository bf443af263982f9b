import type { Content } from '../http/content.ts'

/** One file as a multipart form (RFC 7578), part `file`. The file's bytes are passed on as they are read. */
export function formContent(fileName: string, file: Content): Content {
  const boundary = `mags-${crypto.randomUUID()}`
  const head = Buffer.from(
    `--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="${escapeName(fileName)}"\r\nContent-Type: ${file.type}\r\n\r\n`,
    'utf8',
  )
  const tail = Buffer.from(`\r\n--${boundary}--\r\n`, 'utf8')
  return {
    type: `multipart/form-data; boundary=${boundary}`,
    lengthBytes: file.lengthBytes === undefined ? undefined : head.length + file.lengthBytes + tail.length,
    async *open() {
      yield head
      yield* file.open()
      yield tail
    },
  }
}

/** As a quoted string (RFC 2183, RFC 822). Line breaks have no form in it: as browsers write them (HTML Standard, 4.10.21.8). */
function escapeName(name: string): string {
  return name.replace(/["\\]/g, '\\$&').replaceAll('\r', '%0D').replaceAll('\n', '%0A')
}
