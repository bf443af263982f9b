import { MagsError } from '@mags/protocol'

/** Words for a person at the other end; of a fault of ours only that there was one. */
export function describeFailure(error: unknown, name: string): string {
  if (!(error instanceof MagsError) || error.code === 'internal') return `mags: '${name}' cannot be reached because of a fault in the gateway; try again`
  return `mags: ${error.code === 'wake_failed' ? `'${name}' could not be woken: ` : ''}${error.message}`
}
