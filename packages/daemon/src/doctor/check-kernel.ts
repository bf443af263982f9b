import { arch, release } from 'node:os'
import { type Check, failure, ok, warning } from './finding.ts'

const oldestForSwap = [5, 19] as const

/** Kernel version and architecture; whether the calls really work is for the container check. */
export const checkKernel: Check = {
  part: 'kernel',
  async run() {
    if (arch() !== 'x64') return failure(`Linux ${release()} on ${arch()}`, 'Mags runs on x86-64 only so far')
    const [major = 0, minor = 0] = release().split('.').map(Number)
    const old = major < oldestForSwap[0] || (major === oldestForSwap[0] && minor < oldestForSwap[1])
    if (old)
      return warning(`Linux ${release()}`, `containers need Linux ${oldestForSwap.join('.')} (overlay on idmapped layers); the vm driver works on older ones`)
    return ok(`Linux ${release()} on x86-64`)
  },
}
