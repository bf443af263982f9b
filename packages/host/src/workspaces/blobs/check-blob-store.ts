import { randomBytes } from 'node:crypto'
import { MagsError } from '@mags/protocol'
import type { BlobStore } from './blob-store.ts'

/**
 * Proves that a store keeps the promises versions of workspaces rest on: conditions of puts above all, which some S3 servers accept and ignore. Writes one object under `checks/` and takes it away again.
 *
 * Rejects with MagsError('object_store_refused') that says which promise is broken.
 */
export async function checkBlobStore(store: BlobStore): Promise<void> {
  const key = `checks/${randomBytes(12).toString('hex')}`
  const [first, second, third] = ['first', 'second', 'third'].map((word) => Buffer.from(`${word} ${key}`)) as [Buffer, Buffer, Buffer]
  const refuse = (what: string) => {
    throw new MagsError(
      'object_store_refused',
      `${store.description} ${what}. Without that two servers could overwrite each other's workspaces. Use a store that enforces If-None-Match and If-Match on PUT (AWS S3, Ceph 16 or newer, MinIO, Cloudflare R2), or a newer version of this one.`,
    )
  }
  try {
    const created = await store.put(key, first, { kind: 'absent' })
    if (!created) return refuse('does not write an object that is not there yet (If-None-Match: *)')
    if (await store.put(key, second, { kind: 'absent' })) return refuse('overwrites an object although told not to (If-None-Match: * is ignored)')
    const swapped = await store.put(key, second, { kind: 'unchanged', etag: created.etag })
    if (!swapped) return refuse('does not replace an object that is unchanged (If-Match)')
    if (await store.put(key, third, { kind: 'unchanged', etag: created.etag })) return refuse('overwrites an object that has changed (If-Match is ignored)')
    const read = await store.get(key)
    if (!read?.bytes.equals(second)) return refuse('does not give back what was written last')
    if (read.etag !== swapped.etag) return refuse('tells another etag on reading than on writing')
    let listed = false
    for await (const info of store.list(key)) listed ||= info.key === key
    if (!listed) return refuse('does not list an object that was just written')
  } finally {
    await store.delete([key]).catch(() => undefined)
  }
}
