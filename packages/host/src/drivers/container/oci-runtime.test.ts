import { describe, expect, it } from 'vitest'
import { checkOciRuntime } from './oci-runtime.ts'

describe('the OCI runtime', () => {
  it('is refused with words when it keeps programs in a machine of their own', async () => {
    for (const name of ['runsc', 'kata-runtime'])
      await expect(checkOciRuntime(name)).rejects.toThrow(/cannot take the agent's listening socket.*isolation "vm"/)
  })

  it('is refused with the names of those there are', async () => {
    for (const name of ['youki', '', '/usr/bin/crun', 'crun;true']) {
      await expect(checkOciRuntime(name)).rejects.toMatchObject({ code: 'not_available', message: expect.stringContaining('use crun or runc') })
    }
  })
})
