import { MagsError } from '@mags/protocol'

/** Made anew for each sandbox. */
const notKept = new Set(['proc', 'dev', 'sys', 'run'])

/** The name of the folder that `WorkspaceHold.scope` is: `workspace` of `/workspace`. Rejects with MagsError 'internal' anything but a folder at the top that can be kept. */
export function scopeFolder(scope: string): string {
  const name = scope.slice(1)
  const good = scope.startsWith('/') && name.length > 0 && Buffer.byteLength(name) <= 255 && !/[/\0]/.test(name) && name !== '.' && name !== '..'
  if (!good || notKept.has(name)) throw new MagsError('internal', `${JSON.stringify(scope)} cannot be all that is kept of a workspace`)
  return name
}
