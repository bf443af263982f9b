import { nameLimitBytes } from './layer-frame-constants.ts'

const kept: ReadonlySet<string> = new Set(['security.capability', 'system.posix_acl_access', 'system.posix_acl_default', 'trusted.overlay.opaque'])

/** Whether a layer keeps an attribute. Each character of the name is one byte, so that names which are no UTF-8 survive. */
export function isKeptAttribute(name: string, value: Buffer): boolean {
  if (name.length > nameLimitBytes || name.includes('\0')) return false
  if (name.startsWith('user.')) return name.length > 5
  return kept.has(name) && (name !== 'trusted.overlay.opaque' || value.toString('latin1') === 'y')
}
