import { MagsApiError } from '@mags/sdk'
import { describe, expect, it } from 'vitest'
import { Output } from '../terminal/output.ts'
import { reportFailure } from './report-failure.ts'

async function reported(error: unknown, json = false): Promise<{ code: number; stderr: string }> {
  let stderr = ''
  const stream = {
    on: () => undefined,
    write: (bytes: string | Uint8Array, done: () => void) => {
      stderr += bytes.toString()
      done()
      return true
    },
  }
  const output = new Output({ stdout: stream, stderr: stream }, {})
  output.json = json
  return { code: await reportFailure(error, output, 'run'), stderr }
}

const refusal = (message: string) => new MagsApiError({ status: 400, code: 'bad_request', message, body: { error: message, code: 'bad_request' } })

describe('reportFailure', () => {
  it('names flags where the API names fields', async () => {
    expect(await reported(refusal('disk_gb: a disk can only grow'))).toEqual({ code: 1, stderr: 'mags: --disk: a disk can only grow\n' })
    expect((await reported(refusal('from: version 1 is the first'))).stderr).toBe('mags: version 1 is the first\n')
    expect((await reported(refusal('other: stays'))).stderr).toBe('mags: other: stays\n')
    expect(JSON.parse((await reported(refusal('disk_gb: no'), true)).stderr)).toEqual({ error: 'disk_gb: no', code: 'bad_request' })
  })

  it('takes a wrong MAGS_PORT for wrong usage', async () => {
    expect(await reported(new TypeError('MAGS_PORT must be a port number.'))).toEqual({ code: 2, stderr: 'mags: MAGS_PORT must be a port number.\n' })
  })
})
