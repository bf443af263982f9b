import { MagsError } from '@mags/protocol'
import { isKey } from './blob-key.ts'
import type { S3Config } from './s3-config.ts'

export interface BlobStoreConfig {
  readonly place: { readonly kind: 'folder'; readonly folder: string } | { readonly kind: 's3'; readonly s3: S3Config }
  /** Objects are encrypted with the key in this file. */
  readonly keyFile?: string
}

/**
 * Where objects are kept: an S3 bucket when MAGS_S3_BUCKET is set, else `folder`. MAGS_S3_ENDPOINT, MAGS_S3_REGION, MAGS_S3_PREFIX, MAGS_S3_ACCESS_KEY_ID and MAGS_S3_SECRET_ACCESS_KEY say the rest, else the
 * AWS tools' own variables. MAGS_ENCRYPTION_KEY_FILE names a key for both.
 */
export function readBlobStoreConfig(environment: Readonly<Record<string, string | undefined>>, folder: string): BlobStoreConfig {
  const read = (...names: string[]) => names.map((name) => environment[name]).find((value) => value !== undefined && value !== '')
  const keyFile = read('MAGS_ENCRYPTION_KEY_FILE')
  const encryption = keyFile === undefined ? {} : { keyFile }
  const bucket = read('MAGS_S3_BUCKET')
  if (bucket === undefined) return { place: { kind: 'folder', folder }, ...encryption }
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$/.test(bucket)) throw wrong(`MAGS_S3_BUCKET is no name of a bucket: '${bucket.slice(0, 300)}'`)
  const prefix = (read('MAGS_S3_PREFIX') ?? '').replace(/^\/+|\/+$/g, '')
  if (prefix !== '' && (!isKey(prefix) || prefix.length > 400))
    throw wrong(`MAGS_S3_PREFIX may have letters, digits, '.', '_', '-' and '/' only: '${prefix.slice(0, 300)}'`)
  const endpoint = read('MAGS_S3_ENDPOINT', 'AWS_ENDPOINT_URL_S3', 'AWS_ENDPOINT_URL')
  const credentials = readCredentials(read)
  const s3: S3Config = {
    bucket,
    region: read('MAGS_S3_REGION', 'AWS_REGION', 'AWS_DEFAULT_REGION') ?? 'us-east-1',
    prefix,
    ...(endpoint === undefined ? {} : { endpoint: endpoint.replace(/\/+$/, '') }),
    ...(credentials === undefined ? {} : { credentials }),
  }
  return { place: { kind: 's3', s3 }, ...encryption }
}

/** Both of one kind: a key of ours never goes with a secret of AWS's tools. */
function readCredentials(read: (...names: string[]) => string | undefined): S3Config['credentials'] {
  for (const [idName, secretName] of [
    ['MAGS_S3_ACCESS_KEY_ID', 'MAGS_S3_SECRET_ACCESS_KEY'],
    ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'],
  ] as const) {
    const [accessKeyId, secretAccessKey] = [read(idName), read(secretName)]
    if (accessKeyId === undefined && secretAccessKey === undefined) continue
    if (accessKeyId === undefined) throw wrong(`${secretName} is set, but ${idName} is not`)
    if (secretAccessKey === undefined) throw wrong(`${idName} is set, but ${secretName} is not`)
    const sessionToken = idName === 'AWS_ACCESS_KEY_ID' ? read('AWS_SESSION_TOKEN') : undefined
    return { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) }
  }
  return undefined
}

function wrong(message: string): MagsError {
  return new MagsError('object_store_refused', `${message}.`)
}
