import { once } from 'node:events'
import { connect } from 'node:net'
import { MagsError } from '@mags/protocol'
import type { LayerSession } from './layer-session.ts'
import { StreamLayerSession } from './stream-layer-session.ts'

/**
 * A session about the layer in `dir` (which has `u`), an absolute path in the mounts of the mounter that listens on `socketPath`. No part of it may be a link.
 * `only`: the one name at the top that is looked at, with what is below it.
 * @throws MagsError 'sandbox_failed' when nobody listens there or the folder cannot be opened.
 */
export async function openHostLayer(socketPath: string, dir: string, only?: string): Promise<LayerSession> {
  const stream = connect(socketPath)
  try {
    await once(stream, 'connect')
  } catch (cause) {
    stream.destroy()
    throw new MagsError('sandbox_failed', `the mounter does not take connections for layers on ${socketPath}: ${(cause as Error).message}`, { cause })
  }
  return StreamLayerSession.open(stream, dir, undefined, only)
}
