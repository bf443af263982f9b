import { describe, expect, it } from 'vitest'
import { renderErrorsDocument } from './errors-document.ts'

describe('docs/errors.md', () => {
  it('is what the catalogue says', async () => {
    await expect(renderErrorsDocument()).toMatchFileSnapshot('../../../docs/errors.md')
  })
})
