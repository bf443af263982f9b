import { setTimeout as delay } from 'node:timers/promises'
import type { S3Client } from '@aws-sdk/client-s3'
import { MagsError } from '@mags/protocol'
import { checkKey, checkPrefix, isKey } from './blob-key.ts'
import { type Blob, type BlobInfo, type BlobStore, maxBlobBytes, maxStoredBytes, type PutCondition } from './blob-store.ts'
import type { S3Config } from './s3-config.ts'
import { judgeS3Error, type S3Verdict, s3Error } from './s3-error.ts'

type S3Module = typeof import('@aws-sdk/client-s3')

/** A slower line than 0.25 MiB/s counts as one that does not answer. */
const leastBytesPerMs = 262
const parallelDeletes = 16

interface Request<T> {
  readonly doing: string
  readonly sizeBytes: number
  readonly abort?: AbortSignal | undefined
  /** Asked after an error that is not worth another try; undefined passes it on. */
  readonly settle?: (verdict: S3Verdict, mayHaveHappened: boolean) => Promise<{ readonly value: T } | undefined>
}

/** Objects in an S3 bucket. Retries are its own: a request that may have taken effect although its answer was lost needs a look before it is sent again. */
export class S3BlobStore implements BlobStore {
  readonly description: string
  readonly #s3: S3Module
  readonly #client: S3Client
  readonly #bucket: string
  readonly #prefix: string
  readonly #attempts: number
  /** How the server wants etags in If-Match. RFC 9110 has them in quotes; Ceph's gateway takes them literally, although it tells them with quotes. Found out with the first swap. */
  #etagForm: 'unknown' | 'quoted' | 'bare' = 'unknown'

  private constructor(s3: S3Module, config: S3Config) {
    this.#s3 = s3
    this.#bucket = config.bucket
    this.#prefix = config.prefix === '' ? '' : `${config.prefix}/`
    this.#attempts = config.attempts ?? 4
    this.description = `S3 bucket ${config.bucket}${config.prefix === '' ? '' : `/${config.prefix}`} at ${config.endpoint ?? `AWS ${config.region}`}`
    const connections = { keepAlive: true, maxSockets: 32 }
    this.#client = new s3.S3Client({
      region: config.region,
      ...(config.endpoint === undefined ? {} : { endpoint: config.endpoint, forcePathStyle: true }),
      ...(config.credentials === undefined ? {} : { credentials: config.credentials }),
      maxAttempts: 1,
      // Others than AWS do not know its trailing checksums; packs carry their own.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      requestHandler: { connectionTimeout: 5000, socketTimeout: config.idleTimeoutMs ?? 20_000, httpAgent: connections, httpsAgent: connections },
    })
  }

  /** Loads the client library; nobody else pays for it. Sends nothing yet. */
  static async open(config: S3Config): Promise<S3BlobStore> {
    if (config.endpoint !== undefined && !/^https?:\/\/[^/@?#]+$/.test(config.endpoint))
      throw new MagsError('object_store_refused', 'MAGS_S3_ENDPOINT must be like https://s3.example.net or http://10.1.2.3:9000, without a path or a password.')
    return new S3BlobStore(await import('@aws-sdk/client-s3'), config)
  }

  get(key: string, abort?: AbortSignal): Promise<Blob | undefined> {
    const name = this.#name(key)
    const settle: Request<Blob | undefined>['settle'] = async (verdict) => (verdict === 'missing' ? { value: undefined } : undefined)
    return this.#send<Blob | undefined>({ doing: `cannot read ${key}`, sizeBytes: maxBlobBytes, abort, settle }, async (abortSignal) => {
      const answer = await this.#client.send(new this.#s3.GetObjectCommand({ Bucket: this.#bucket, Key: name }), { abortSignal })
      if (answer.Body === undefined || answer.ETag === undefined) throw new Error('the answer has no contents or no ETag')
      if ((answer.ContentLength ?? 0) > maxStoredBytes) {
        void answer.Body.transformToWebStream().cancel()
        throw new MagsError('object_store_refused', `${this.description}: ${key} is over 64 MiB.`)
      }
      const bytes = await answer.Body.transformToByteArray()
      if (answer.ContentLength !== undefined && bytes.length !== answer.ContentLength) throw new Error('the answer is cut short')
      return { bytes: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), etag: answer.ETag }
    })
  }

  async put(key: string, bytes: Uint8Array, condition?: PutCondition): Promise<{ readonly etag: string } | undefined> {
    if (bytes.length > maxStoredBytes) throw new MagsError('object_store_refused', `${key} is over 64 MiB.`)
    if (condition?.kind !== 'unchanged') return this.#put(key, bytes, condition && { IfNoneMatch: '*' })
    const { etag } = condition
    if (this.#etagForm !== 'bare') {
      const put = await this.#put(key, bytes, { IfMatch: etag })
      if (put) this.#etagForm = 'quoted'
      if (put || this.#etagForm === 'quoted' || (await this.get(key))?.etag !== etag) return put
    }
    const put = await this.#put(key, bytes, { IfMatch: etag.replace(/^"|"$/g, '') })
    if (put) this.#etagForm = 'bare'
    return put
  }

  #put(
    key: string,
    bytes: Uint8Array,
    conditions: { readonly IfMatch?: string; readonly IfNoneMatch?: string } | undefined,
  ): Promise<{ readonly etag: string } | undefined> {
    const name = this.#name(key)
    const settle = async (verdict: S3Verdict, mayHaveHappened: boolean) => {
      // AWS says 404 to If-Match on what is not there.
      const refused = verdict === 'condition-failed' || (verdict === 'missing' && conditions?.IfMatch !== undefined)
      if (conditions === undefined || !refused) return undefined
      if (!mayHaveHappened) return { value: undefined }
      // An earlier try may be what is there now.
      const found = await this.get(key)
      return { value: found?.bytes.equals(bytes) ? { etag: found.etag } : undefined }
    }
    return this.#send<{ readonly etag: string } | undefined>({ doing: `cannot write ${key}`, sizeBytes: bytes.length, settle }, async (abortSignal) => {
      const command = new this.#s3.PutObjectCommand({
        Bucket: this.#bucket,
        Key: name,
        Body: bytes,
        ContentLength: bytes.length,
        ContentType: 'application/octet-stream',
        ...conditions,
      })
      const answer = await this.#client.send(command, { abortSignal })
      if (answer.ETag === undefined) throw new Error('the answer has no ETag')
      return { etag: answer.ETag }
    })
  }

  /** One by one: DeleteObjects is not known everywhere. */
  async delete(keys: readonly string[]): Promise<void> {
    const waiting = keys.map((key) => ({ key, name: this.#name(key) }))
    const work = async () => {
      for (let next = waiting.pop(); next; next = waiting.pop()) {
        const { key, name } = next
        const settle: Request<void>['settle'] = async (verdict) => (verdict === 'missing' ? { value: undefined } : undefined)
        await this.#send<void>({ doing: `cannot delete ${key}`, sizeBytes: 0, settle }, async (abortSignal) => {
          await this.#client.send(new this.#s3.DeleteObjectCommand({ Bucket: this.#bucket, Key: name }), { abortSignal })
        })
      }
    }
    await Promise.all(Array.from({ length: Math.min(parallelDeletes, keys.length) }, work))
  }

  async *list(prefix: string): AsyncIterable<BlobInfo> {
    const Prefix = this.#prefix + checkPrefix(prefix)
    let token: string | undefined
    do {
      const page = await this.#send({ doing: `cannot list ${prefix === '' ? 'the bucket' : prefix}`, sizeBytes: 1 << 20 }, (abortSignal) =>
        this.#client.send(new this.#s3.ListObjectsV2Command({ Bucket: this.#bucket, Prefix, ...(token === undefined ? {} : { ContinuationToken: token }) }), {
          abortSignal,
        }),
      )
      for (const { Key, Size, LastModified } of page.Contents ?? []) {
        const key = Key?.startsWith(Prefix) ? Key.slice(this.#prefix.length) : ''
        if (isKey(key)) yield { key, sizeBytes: Size ?? 0, modifiedAt: LastModified ?? new Date(0) }
      }
      const next = page.IsTruncated ? page.NextContinuationToken : undefined
      if (page.IsTruncated && (next === undefined || next === token))
        throw new MagsError('object_store_refused', `${this.description}: a listing breaks off; the store does not know ListObjectsV2 as it should.`)
      token = next
    } while (token !== undefined)
  }

  close(): void {
    this.#client.destroy()
  }

  #name(key: string): string {
    return this.#prefix + checkKey(key)
  }

  async #send<T>({ doing, sizeBytes, abort, settle }: Request<T>, ask: (abort: AbortSignal) => Promise<T>): Promise<T> {
    let mayHaveHappened = false
    for (let attempt = 1; ; attempt++) {
      abort?.throwIfAborted()
      const deadline = AbortSignal.timeout(30_000 + Math.ceil(sizeBytes / leastBytesPerMs))
      try {
        return await ask(abort ? AbortSignal.any([abort, deadline]) : deadline)
      } catch (error) {
        abort?.throwIfAborted()
        if (error instanceof MagsError) throw error
        const verdict = judgeS3Error(error)
        const settled = verdict === 'try-again' ? undefined : await settle?.(verdict, mayHaveHappened)
        if (settled) return settled.value
        if (verdict !== 'try-again' || attempt >= this.#attempts) throw s3Error(this.description, doing, error)
        mayHaveHappened = true
      }
      await delay(Math.random() * Math.min(2000, 200 * 2 ** (attempt - 1)), undefined, abort ? { signal: abort } : {}).catch(() => abort?.throwIfAborted())
    }
  }
}
