import { access, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { MagsError } from '@mags/protocol'

/** Where the parts of this checkout are. */
export interface Installation {
  readonly version: string
  readonly agentBinary: string
  readonly mounterBinary: string
  /** Builds one of `images/`. */
  readonly imageScript: string
}

/** Finds them from this file's place: packages/daemon/{src,dist}/config. */
export async function installation(): Promise<Installation> {
  const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', '..')
  const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string }
  const native = (name: string) => join(root, 'native', 'build', name)
  const found = { version, agentBinary: native('agent'), mounterBinary: native('mounter'), imageScript: join(root, 'setup', 'steps', 'image.sh') }
  for (const file of [found.agentBinary, found.mounterBinary]) {
    await access(file).catch(() => {
      throw new MagsError('internal', `${file} is missing; ./mags setup builds it`)
    })
  }
  return found
}
