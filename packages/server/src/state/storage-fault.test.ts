import { MagsError } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { storageFaultOf } from './storage-fault.ts'

const coded = (code: string, more: object = {}) => Object.assign(new Error(code), { code, ...more })

describe('storageFaultOf', () => {
  it.each([
    ['a full disk', coded('ENOSPC'), /is full; free some space/],
    ['a quota', coded('EDQUOT'), /quota/],
    ['a disk that is mounted read-only', coded('EROFS'), /read-only/],
    ['a full disk under SQLite', coded('ERR_SQLITE_ERROR', { errcode: 13 }), /is full/],
    ['a failing disk under SQLite, with the extended code', coded('ERR_SQLITE_ERROR', { errcode: 10 | (3 << 8) }), /fails/],
    ['a full disk under PostgreSQL', coded('53100'), /database is full/],
    ['the cause of another error', new MagsError('sandbox_failed', 'no', { cause: coded('ENOSPC') }), /is full/],
    ['our own error', new MagsError('storage_full', 'full'), /^full$/],
  ])('knows %s', (_name, error, words) => {
    expect(storageFaultOf(error)).toMatch(words)
  })

  it.each([coded('ENOENT'), coded('ERR_SQLITE_ERROR', { errcode: 19 }), new MagsError('internal', 'x'), 'text', undefined])(
    'does not take %s for one',
    (error) => {
      expect(storageFaultOf(error)).toBeUndefined()
    },
  )
})
