import { type ErrorCode, errorCatalogue, MagsError } from '@mags/protocol'
import { type ClientRequest, wantsPage } from '../request/client-request.ts'
import { jsonAnswer, type OwnAnswer, pageAnswer } from './own-answer.ts'
import { errorPage, waitingPage } from './page.ts'

const titles: Readonly<Record<number, string>> = {
  400: 'That request cannot be answered',
  401: 'This page is private',
  404: 'There is nothing here',
  405: 'That method is not served here',
  410: 'This sandbox is over',
  413: 'That is too large',
  502: 'The sandbox does not answer',
  503: 'Too busy',
  504: 'The sandbox took too long',
}

/** A fault in words: a page for who looks at one, else JSON as the API has it. */
export function errorAnswer(request: ClientRequest, status: number, code: ErrorCode, message: string, headers: OwnAnswer['headers'] = []): OwnAnswer {
  if (wantsPage(request)) return pageAnswer(status, errorPage(titles[status] ?? 'That did not work', sentence(message)), headers)
  return jsonAnswer(status, { error: message, code }, headers)
}

/** What a visitor hears when a job cannot be reached; other faults than MagsError are ours and say nothing. */
export function failureAnswer(request: ClientRequest, error: unknown, name: string): OwnAnswer {
  if (!(error instanceof MagsError)) return errorAnswer(request, 502, 'sandbox_failed', `the server could not reach ${name}; its log says why`)
  switch (error.code) {
    case 'job_not_running':
      return errorAnswer(request, 410, error.code, error.message)
    case 'no_capacity':
    case 'rate_limited':
      return errorAnswer(request, 503, error.code, error.message, [['Retry-After', '2']])
    case 'not_listening':
    case 'wake_failed':
    case 'sandbox_failed':
      return errorAnswer(request, 502, error.code, error.message)
    default:
      return errorAnswer(request, errorCatalogue[error.code].status >= 500 ? 502 : errorCatalogue[error.code].status, error.code, error.message)
  }
}

/** For a browser that has waited long enough; it asks again. */
export function waitingAnswer(title: string, words: string): OwnAnswer {
  return pageAnswer(503, waitingPage(title, words), [['Retry-After', '2']])
}

function sentence(message: string): string {
  const first = message.charAt(0).toUpperCase() + message.slice(1)
  return /[.!?]$/.test(first) ? first : `${first}.`
}
