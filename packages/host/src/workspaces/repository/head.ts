import type { WorkspaceVersion } from '@mags/protocol'
import { type DocumentKind, decodeDocument, encodeDocument } from './stored-document.ts'
import type { StoredFields } from './stored-fields.ts'

/** A version as the head knows it. */
export interface HeadVersion extends WorkspaceVersion {
  /** Its object, and that object's SHA-256. */
  readonly key: string
  readonly sha256: string
  /** Whose it is. */
  readonly fence: number
}

/** What a workspace is: who may write it, and its versions, the oldest first. */
export interface Head {
  readonly storageId: string
  readonly fence: number
  /** Random, of one claim: tells a claim whose answer was lost from another's. */
  readonly holder: string
  /** Random, changed by collectors: whoever is about to replace the head they saw before has to look again. */
  readonly touch: string
  readonly versions: readonly HeadVersion[]
}

const kind: DocumentKind = { name: 'head', maxBytes: 4 << 20 }
const format = 1
/** What a reader accepts; how many are kept is decided by whoever writes. */
const maxVersions = 2000

export const newestOf = (head: Head): number => head.versions.at(-1)?.version ?? 0

export function encodeHead(head: Head): Promise<Buffer> {
  const versions = head.versions.map((version) => ({
    version: version.version,
    key: version.key,
    sha256: version.sha256,
    fence: version.fence,
    created_at: version.createdAt,
    reason: version.reason,
    size_bytes: version.sizeBytes,
    entry_count: version.entryCount,
    uploaded_bytes: version.uploadedBytes,
    image: { name: version.image.name, digest: version.image.digest },
  }))
  return encodeDocument(kind, format, { storage_id: head.storageId, fence: head.fence, holder: head.holder, touch: head.touch, versions })
}

/** Rejects with MagsError('workspace_damaged') naming the object. */
export function decodeHead(key: string, bytes: Buffer): Promise<Head> {
  return decodeDocument(kind, key, bytes, { 1: (fields) => readHead(key, fields) })
}

function readHead(key: string, fields: StoredFields): Head {
  fields.only('kind', 'format', 'storage_id', 'fence', 'holder', 'touch', 'versions')
  const folder = key.slice(0, -'head'.length)
  const storageId = fields.text('storage_id', /^[A-Za-z0-9_-]{1,100}$/)
  if (folder !== `workspaces/${storageId}/`) throw new Error('it belongs to another workspace')
  const fence = fields.integer('fence', 1)
  const versions = fields.listOfFields('versions', maxVersions).map((version) => readVersion(folder, version))
  for (const [index, version] of versions.entries()) {
    const before = versions[index - 1]
    if (version.fence > fence || (before && (version.version !== before.version + 1 || version.fence < before.fence)))
      throw new Error(`its versions are out of order at ${version.version}`)
  }
  return { storageId, fence, holder: fields.text('holder', /^[0-9a-f]{32}$/), touch: fields.text('touch', /^[0-9a-f]{16}$/), versions }
}

function readVersion(folder: string, fields: StoredFields): HeadVersion {
  fields.only('version', 'key', 'sha256', 'fence', 'created_at', 'reason', 'size_bytes', 'entry_count', 'uploaded_bytes', 'image')
  const key = fields.text('key', /\/versions\/\d{1,16}-\d{1,16}-[0-9a-f]{16}$/)
  if (!key.startsWith(`${folder}versions/`) || key.lastIndexOf('/') !== folder.length + 'versions'.length)
    throw new Error('a version has the key of another workspace')
  return {
    version: fields.integer('version', 1),
    key,
    sha256: fields.text('sha256', /^[0-9a-f]{64}$/),
    fence: fields.integer('fence', 1),
    createdAt: fields.time('created_at'),
    reason: fields.text('reason', /^(sync|fork|restore)$/) as WorkspaceVersion['reason'],
    sizeBytes: fields.integer('size_bytes'),
    entryCount: fields.integer('entry_count'),
    uploadedBytes: fields.integer('uploaded_bytes'),
    image: readImage(fields),
  }
}

export function readImage(fields: StoredFields): WorkspaceVersion['image'] {
  const image = fields.fields('image').only('name', 'digest')
  return { name: image.text('name', /^.{1,500}$/s), digest: image.text('digest', /^.{1,500}$/s) }
}
