/** Where an S3 store is and who we are there. */
export interface S3Config {
  readonly bucket: string
  /** Such as `https://s3.example.net`; buckets are then part of the path. AWS itself when there is none. */
  readonly endpoint?: string
  readonly region: string
  /** Before every key, without slashes at its ends; empty for none. */
  readonly prefix: string
  /** Otherwise as the AWS tools find them: profile, container or instance role. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string; readonly sessionToken?: string }
  /** Waiting for a single answer without a byte going either way; default 20,000. */
  readonly idleTimeoutMs?: number
  /** Tries per request, default 4. */
  readonly attempts?: number
}
