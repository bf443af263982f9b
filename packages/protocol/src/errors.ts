/**
 * The error catalogue: one row per stable code. HTTP answers, CLI exit codes, OpenAPI and docs/errors.md derive from it.
 */
interface ErrorRow {
  /** HTTP status under /api/v2, and under /api/v1 unless `statusV1` differs. */
  readonly status: number
  readonly statusV1?: number
  /** Whether the same request may succeed later without a change. */
  readonly retryable: boolean
  readonly meaning: string
}

const rows = {
  bad_request: { status: 400, retryable: false, meaning: 'The request is not well formed; the text names the field and the rule.' },
  not_available: { status: 400, retryable: false, meaning: 'This server cannot do that (yet); the text says what is missing.' },
  unauthorized: { status: 401, retryable: false, meaning: 'No token, or one that is not known.' },
  forbidden: { status: 403, retryable: false, meaning: 'Not yours to do.' },
  not_found: { status: 404, retryable: false, meaning: 'No such thing, or it belongs to another account.' },
  method_not_allowed: { status: 405, retryable: false, meaning: 'The path exists, the method does not.' },
  already_exists: { status: 409, retryable: false, meaning: 'The name is taken already.' },
  idempotency_conflict: { status: 409, retryable: false, meaning: 'This Idempotency-Key was used with a different body.' },
  too_large: { status: 413, retryable: false, meaning: 'A body or a part of it is over its limit.' },
  out_of_range: { status: 422, retryable: false, meaning: 'A value of the Jobs API is not in its range; the text names the field and the rule.' },
  image_in_use: { status: 409, retryable: false, meaning: 'Something still needs the image; the text says what.' },
  image_invalid: { status: 400, retryable: false, meaning: 'What should become an image cannot; the text names the entry and the rule.' },
  image_source_unreachable: {
    status: 502,
    retryable: true,
    meaning: 'Where an image comes from does not answer; the text names the address, and how to bring the image by file.',
  },
  range_not_satisfiable: { status: 416, retryable: false, meaning: 'The range asked for lies behind the end of the file.' },
  unsupported_media_type: { status: 415, retryable: false, meaning: 'The body must be JSON.' },
  request_timeout: { status: 408, retryable: true, meaning: 'The body did not arrive in time.' },
  workspace_in_use: { status: 409, statusV1: 500, retryable: true, meaning: 'Another job holds the workspace.' },
  workspace_fenced: {
    status: 409,
    retryable: false,
    meaning: 'The workspace was taken over by another holder; what was not saved before that stays on the machine it was made on.',
  },
  workspace_damaged: { status: 500, retryable: false, meaning: 'A part of a saved workspace is missing or not what was written; the text names it.' },
  workspace_not_savable: {
    status: 400,
    retryable: false,
    meaning: 'The workspace holds something that cannot be saved; the text names the path or the limit.',
  },
  workspace_unsaved: {
    status: 503,
    retryable: true,
    meaning: 'The workspace could not be saved in time; its changes are kept on the machine and saved later.',
  },
  object_store_unavailable: { status: 503, retryable: true, meaning: 'The object store does not answer; nothing is lost, try again.' },
  object_store_refused: { status: 500, retryable: false, meaning: 'The object store refuses what this server needs; the text says what to set right.' },
  job_not_running: { status: 400, retryable: false, meaning: 'The job is not in a state that allows this.' },
  not_listening: { status: 400, retryable: true, meaning: 'Nothing listens on that port inside the sandbox.' },
  wake_failed: { status: 502, retryable: true, meaning: 'A sleeping job could not be woken; the text says why.' },
  rate_limited: { status: 429, retryable: true, meaning: 'Too many requests or over the quota.' },
  no_capacity: { status: 503, retryable: true, meaning: 'The queue is full.' },
  storage_full: {
    status: 507,
    retryable: true,
    meaning:
      "The disk with the server's data is full, or cannot be written; the text says what to do. Nothing of the request was done, or what it began goes on once there is room.",
  },
  sandbox_failed: { status: 500, retryable: true, meaning: 'A sandbox could not be made or died; the text has the last words of its driver.' },
  script_fetch_failed: { status: 400, retryable: true, meaning: 'The script address could not be read.' },
  internal: { status: 500, retryable: true, meaning: 'A fault of ours; the log has it under the request id.' },
} as const satisfies Record<string, ErrorRow>

export type ErrorCode = keyof typeof rows
export const errorCatalogue: Readonly<Record<ErrorCode, ErrorRow>> = rows

/** The one error that crosses our seams: a stable code, words for a person, and structured details. */
export class MagsError extends Error {
  readonly code: ErrorCode
  readonly details: Record<string, unknown> | undefined

  constructor(code: ErrorCode, message: string, options: { details?: Record<string, unknown>; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'MagsError'
    this.code = code
    this.details = options.details
  }
}
