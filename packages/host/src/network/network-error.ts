import { MagsError } from '@mags/protocol'

/** The Debian package of each program the network runs. */
const packages: Readonly<Record<string, string>> = { nft: 'nftables', ip: 'iproute2', bridge: 'iproute2', dnsmasq: 'dnsmasq-base' }

/** The edge where errors of programs and system calls become ours. */
export async function networkError<T>(action: () => Promise<T>): Promise<T> {
  try {
    return await action()
  } catch (error) {
    if (error instanceof MagsError) throw error
    const { code, path } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' && path !== undefined && !path.includes('/')) {
      throw new MagsError('not_available', `The program ${path} is missing; install it: apt-get install ${packages[path] ?? 'util-linux'}`, { cause: error })
    }
    throw new MagsError('sandbox_failed', `The sandbox network failed: ${error instanceof Error ? error.message : String(error)}`, { cause: error })
  }
}

export function requireRoot() {
  if (process.getuid?.() !== 0) throw new MagsError('not_available', 'Sandbox networks need root; start the server as root.')
}
