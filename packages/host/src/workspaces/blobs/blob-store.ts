/** What a caller may put. */
export const maxBlobBytes = 64 << 20
/** With the header a wrapper may add. */
export const maxStoredBytes = maxBlobBytes + 1024

/** One object as a listing shows it. */
export interface BlobInfo {
  readonly key: string
  readonly sizeBytes: number
  readonly modifiedAt: Date
}

export interface Blob {
  readonly bytes: Buffer
  readonly etag: string
}

/** Put only when there is no such object yet, or only when it is still this one. */
export type PutCondition = { readonly kind: 'absent' } | { readonly kind: 'unchanged'; readonly etag: string }

/**
 * Objects by key, in a folder or an S3 bucket. Every store passes `blob-store-conformance.ts`.
 *
 * Keys are `/`-joined parts of `A-Za-z0-9._-`, at most 512 bytes, a part at most 200 and never `.` or `..`; no key is the folder of another. Objects are at most 64 MiB.
 * Failures that may pass (network, 5xx, throttling) reject with MagsError('object_store_unavailable') after the store's own few retries, everything else (no permission, no such bucket) with
 * MagsError('object_store_refused') that says what to do.
 */
export interface BlobStore {
  /** For people: `folder /var/lib/mags/objects`, `S3 bucket mags at https://…`. Never a secret. */
  readonly description: string
  get(key: string, abort?: AbortSignal): Promise<Blob | undefined>
  /**
   * Durable once settled. Undefined when the condition did not hold; the object is then as it was. With a condition no two writers may put the same bytes: where the answer was lost, that is how one knows its own.
   */
  put(key: string, bytes: Uint8Array, condition?: PutCondition): Promise<{ readonly etag: string } | undefined>
  /** No error for what is not there. */
  delete(keys: readonly string[]): Promise<void>
  /** All keys that begin so, in byte order. */
  list(prefix: string): AsyncIterable<BlobInfo>
  close(): void
}
