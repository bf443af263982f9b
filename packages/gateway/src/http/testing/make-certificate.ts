import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { onTestFinished } from 'vitest'
import type { CertificateFiles } from '../../tls/reloaded-certificate.ts'

const run = promisify(execFile)

/** A certificate of its own signature for `*.apps.localhost`, removed with the test. */
export async function makeCertificate(): Promise<CertificateFiles> {
  const folder = await mkdtemp(join(tmpdir(), 'mags-gateway-'))
  onTestFinished(() => rm(folder, { recursive: true }))
  const files = { cert: join(folder, 'cert.pem'), key: join(folder, 'key.pem') }
  await writeCertificate(files, 'first')
  return files
}

/** Replaces the files of a certificate. */
export async function writeCertificate({ cert, key }: CertificateFiles, name: string): Promise<void> {
  const names = 'subjectAltName=DNS:*.apps.localhost,DNS:apps.localhost'
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']
  await run('openssl', ['req', '-x509', ...curve, '-nodes', '-days', '2', '-subj', `/CN=${name}`, '-addext', names, '-keyout', key, '-out', cert])
}
