/** Bytes that go out as the body of a request, as they are read. */
export interface Content {
  /** Media type. */
  readonly type: string
  /** When known ahead; otherwise the body is sent in chunks. */
  readonly lengthBytes?: number | undefined
  /** Reads from the first byte; called once for each try. */
  open(): AsyncIterable<Uint8Array>
}

/** What a caller may give as content. An async iterable can be read only once. */
export type Bytes = string | Uint8Array | AsyncIterable<Uint8Array>

/** Content out of what a caller gave, and whether it can be sent a second time. */
export function contentFrom(bytes: Bytes, type: string, lengthBytes?: number): { readonly content: Content; readonly repeatable: boolean } {
  if (typeof bytes === 'string' || bytes instanceof Uint8Array) {
    const whole = typeof bytes === 'string' ? Buffer.from(bytes, 'utf8') : bytes
    return { content: { type, lengthBytes: whole.length, open: () => parts(whole) }, repeatable: true }
  }
  return { content: { type, lengthBytes, open: () => bytes }, repeatable: false }
}

const partBytes = 256 * 1024

async function* parts(whole: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < whole.length; at += partBytes) yield whole.subarray(at, at + partBytes)
}
