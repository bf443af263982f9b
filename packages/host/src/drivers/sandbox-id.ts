import { randomBytes } from 'node:crypto'

/** A sandbox's id: twelve lower-case hex digits. It names files, links and groups, and is the `vm_id` of the API. */
export function newSandboxId() {
  return randomBytes(6).toString('hex')
}

/** Host name of a sandbox; a valid DNS label. */
export function hostnameOf(id: string) {
  return `mags-${id.slice(0, 8)}`
}
