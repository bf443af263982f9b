import { MagsError } from '@mags/protocol'

/** What is known of a failed request. */
interface Failure {
  readonly name: string
  readonly message: string
  readonly code?: string
  readonly status?: number
}

/** How to go on after a failed request. */
export type S3Verdict = 'condition-failed' | 'missing' | 'try-again' | 'give-up'

const passingNames = new Set([
  'SlowDown',
  'RequestTimeout',
  'ThrottlingException',
  'Throttling',
  'TooManyRequests',
  'ServiceUnavailable',
  'InternalError',
  'ConditionalRequestConflict',
  'OperationAborted',
])
const badCertificate = /^(CERT_|ERR_TLS_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|ERR_SSL_|EPROTO$)/

export function judgeS3Error(error: unknown): S3Verdict {
  const { name, code, status } = failureOf(error)
  if (name === 'PreconditionFailed' || status === 412) return 'condition-failed'
  if (name === 'NoSuchKey' || name === 'NotFound') return 'missing'
  if (passingNames.has(name)) return 'try-again'
  if (status !== undefined && status >= 400) return status === 429 || (status >= 500 && status !== 501) ? 'try-again' : 'give-up'
  if (code !== undefined && badCertificate.test(code)) return 'give-up'
  if (name === 'CredentialsProviderError' || name === 'TypeError' || name === 'RangeError' || code?.startsWith('ERR_INVALID')) return 'give-up'
  return 'try-again'
}

/** In the words of a blob store, with what to do. `doing` such as `cannot read packs/ab/…`. */
export function s3Error(description: string, doing: string, error: unknown): MagsError {
  if (error instanceof MagsError) return error
  const failure = failureOf(error)
  const where = `${description}: ${doing}`
  const said = `${failure.name}${failure.status === undefined ? '' : `, HTTP ${failure.status}`}${failure.code === undefined ? '' : `, ${failure.code}`}`
  if (judgeS3Error(error) === 'try-again')
    return new MagsError('object_store_unavailable', `${where}: the store does not answer as it should (${said}): ${failure.message}`, { cause: error })
  return new MagsError('object_store_refused', `${where}: ${adviceFor(failure)} (${said})`, { cause: error })
}

function adviceFor({ name, status, code, message }: Failure): string {
  if (name === 'InvalidAccessKeyId') return 'the access key is not known there; check MAGS_S3_ACCESS_KEY_ID'
  if (name === 'SignatureDoesNotMatch') return 'the secret does not fit the access key; check MAGS_S3_SECRET_ACCESS_KEY (and MAGS_S3_REGION)'
  if (name === 'ExpiredToken' || name === 'InvalidToken') return 'the session token is no longer valid; renew the credentials'
  if (name === 'RequestTimeTooSkewed') return "this machine's clock differs too much from the store's; set it (NTP)"
  if (name === 'NoSuchBucket') return 'there is no such bucket; create it, or check MAGS_S3_BUCKET and MAGS_S3_ENDPOINT'
  if (name === 'CredentialsProviderError') return 'no credentials were found; set MAGS_S3_ACCESS_KEY_ID and MAGS_S3_SECRET_ACCESS_KEY'
  if (
    name === 'AuthorizationHeaderMalformed' ||
    name === 'PermanentRedirect' ||
    name === 'IllegalLocationConstraintException' ||
    status === 301 ||
    status === 307
  )
    return 'the bucket is in another region; set MAGS_S3_REGION (and MAGS_S3_ENDPOINT) to the one it is in'
  if (name === 'QuotaExceeded' || name === 'EntityTooLarge') return `the store takes no more: ${message}`
  if (name === 'NotImplemented' || status === 501)
    return 'the store does not know a request that is needed; If-None-Match and If-Match on PUT must be supported'
  if (status === 401 || status === 403) return 'not permitted; the key needs GetObject, PutObject, DeleteObject and ListBucket on this bucket and prefix'
  if (code !== undefined && badCertificate.test(code))
    return "the server's certificate is not trusted; name its issuer's file in NODE_EXTRA_CA_CERTS, or correct http/https in MAGS_S3_ENDPOINT"
  if (code === 'ERR_INVALID_URL') return 'MAGS_S3_ENDPOINT is no address; it begins with https:// or http://'
  return `refused: ${message}`
}

function failureOf(error: unknown): Failure {
  const { name, message, code, $metadata, cause } = error as {
    name?: unknown
    message?: unknown
    code?: unknown
    $metadata?: { httpStatusCode?: number }
    cause?: { code?: unknown }
  }
  const systemCode = typeof code === 'string' ? code : typeof cause?.code === 'string' ? cause.code : undefined
  return {
    name: typeof name === 'string' ? name : 'Error',
    message: (typeof message === 'string' ? message : String(error)).slice(0, 400),
    ...(systemCode !== undefined && systemCode !== name ? { code: systemCode } : {}),
    ...($metadata?.httpStatusCode === undefined ? {} : { status: $metadata.httpStatusCode }),
  }
}
