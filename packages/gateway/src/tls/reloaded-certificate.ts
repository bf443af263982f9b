import { readFile, stat } from 'node:fs/promises'
import { createSecureContext } from 'node:tls'
import { MagsError } from '@mags/protocol'
import type { Logger } from 'pino'

/** Paths of PEM files: the certificate with its chain, and the key. */
export interface CertificateFiles {
  readonly cert: string
  readonly key: string
}

export interface Certificate {
  readonly cert: Buffer
  readonly key: Buffer
}

/**
 * Reads certificate and key, and again when the files change; a pair that does not fit is logged and the one in use is kept. Rejects with MagsError 'bad_request' when the first one cannot be used.
 * Dispose of it to stop looking.
 */
export async function watchCertificate(
  files: CertificateFiles,
  onChange: (certificate: Certificate) => void,
  { logger, everyMs = 5000 }: { readonly logger: Logger; readonly everyMs?: number },
): Promise<{ readonly first: Certificate; check(): Promise<void> } & Disposable> {
  let seen = await stamp(files).catch(() => '')
  let first: Certificate
  try {
    first = await read(files)
  } catch (error) {
    throw new MagsError('bad_request', `certificate ${files.cert} with key ${files.key} cannot be used: ${words(error)}`, { cause: error })
  }
  const check = async () => {
    try {
      const now = await stamp(files)
      if (now === seen) return
      seen = now
      onChange(await read(files))
      logger.info({ cert: files.cert }, 'certificate read anew')
    } catch (error) {
      logger.error({ err: error, cert: files.cert }, 'the changed certificate cannot be used; the one before stays')
    }
  }
  const timer = setInterval(() => void check(), everyMs)
  timer.unref()
  return { first, check, [Symbol.dispose]: () => clearInterval(timer) }
}

async function read(files: CertificateFiles): Promise<Certificate> {
  const [cert, key] = await Promise.all([readFile(files.cert), readFile(files.key)])
  createSecureContext({ cert, key })
  return { cert, key }
}

async function stamp(files: CertificateFiles): Promise<string> {
  const [cert, key] = await Promise.all([stat(files.cert), stat(files.key)])
  return [cert, key].map(({ mtimeMs, size, ino }) => `${mtimeMs} ${size} ${ino}`).join()
}

function words(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
