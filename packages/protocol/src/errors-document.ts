import { errorCatalogue } from './errors.ts'

/** docs/errors.md, made of the catalogue. A test keeps both equal; `npx vitest run packages/protocol -u` writes it anew. */
export function renderErrorsDocument(): string {
  const rows = Object.entries(errorCatalogue).map(([code, row]) => {
    const status = 'statusV1' in row && row.statusV1 !== undefined ? `${row.status} (${row.statusV1} under /api/v1)` : `${row.status}`
    return `| \`${code}\` | ${status} | ${row.retryable ? 'yes' : 'no'} | ${row.meaning} |`
  })
  return [
    '# Errors',
    '',
    'Every error answer has the body `{"error": "<what went wrong, in words>", "code": "<one of these>"}`, and sometimes `details`.',
    'Programs look at `code`; the words may change.',
    '',
    '| code | HTTP status | the same request may succeed later | meaning |',
    '| --- | --- | --- | --- |',
    ...rows,
    '',
  ].join('\n')
}
