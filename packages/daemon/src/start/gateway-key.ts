import { randomBytes } from 'node:crypto'
import { link, open, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { MagsError } from '@mags/protocol'

const keyBytes = 32

/** The key that signs cookies of private URLs, made with the first start: who was let in stays in over restarts. */
export async function readGatewayKey(dataDir: string): Promise<Uint8Array> {
  const file = join(dataDir, 'gateway.key')
  const known = await read(file)
  if (known !== undefined) return known
  const draft = `${file}.${randomBytes(6).toString('hex')}`
  try {
    await using handle = await open(draft, 'wx', 0o600)
    await handle.writeFile(randomBytes(keyBytes))
    await handle.sync()
    // Whole or not there, and the first one stays.
    await link(draft, file).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
  } finally {
    await rm(draft, { force: true })
  }
  return (await read(file)) ?? (await readGatewayKey(dataDir))
}

async function read(file: string): Promise<Uint8Array | undefined> {
  const key = await readFile(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (key !== undefined && key.length !== keyBytes) throw new MagsError('internal', `${file} is no key of ${keyBytes} bytes; remove it, and a new one is made`)
  return key
}
