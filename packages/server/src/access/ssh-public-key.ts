import { createHash } from 'node:crypto'
import { MagsError } from '@mags/protocol'

/** A public key as `authorized_keys` has it (sshd(8)), without options. */
export interface SshPublicKey {
  /** Type and key: what keys are compared by. */
  readonly key: string
  readonly type: string
  readonly comment: string
  /** As `ssh-keygen -l` shows it. */
  readonly fingerprint: string
}

/** Key blobs in bytes: nistp521 and RSA with 1,024 bits or more up to 16,384. */
const blobBytes: Readonly<Record<string, readonly [number, number]>> = {
  'ssh-ed25519': [51, 51],
  'ecdsa-sha2-nistp256': [104, 104],
  'ecdsa-sha2-nistp384': [136, 136],
  'ecdsa-sha2-nistp521': [172, 172],
  'ssh-rsa': [270, 2100],
}

/** Reads one line. Throws MagsError('bad_request') naming the rule. */
export function readSshPublicKey(line: string): SshPublicKey {
  const text = line.trim()
  if (text.includes('PRIVATE KEY')) throw refused('is a private key; give the public one, from the file that ends in .pub')
  if (/[\r\n]/.test(text)) throw refused('must be one line')
  const [type = '', base64 = '', ...comment] = text.split(/[ \t]+/)
  const bounds = blobBytes[type]
  if (bounds === undefined) throw refused(`must begin with one of ${Object.keys(blobBytes).join(', ')}`)
  const blob = Buffer.from(base64, 'base64')
  // The type is in the blob, too; what does not come back the same was no base64 (RFC 4253, 6.6).
  const typeBytes = blob.length >= 4 ? blob.readUInt32BE(0) : 0
  const isWhole = blob.toString('base64') === base64 && blob.subarray(4, 4 + typeBytes).toString('latin1') === type && hasWholeFields(blob)
  if (!isWhole) throw refused(`is not a whole ${type} key`)
  if (blob.length < bounds[0] || blob.length > bounds[1]) throw refused(type === 'ssh-rsa' ? 'must have 2,048 bits at least' : `is not a whole ${type} key`)
  const fingerprint = `SHA256:${createHash('sha256').update(blob).digest('base64').replaceAll('=', '')}`
  return { key: `${type} ${base64}`, type, comment: comment.join(' '), fingerprint }
}

/** Nothing but fields of RFC 4251, 5: a length and that many bytes. */
function hasWholeFields(blob: Buffer): boolean {
  let at = 0
  while (at + 4 <= blob.length) at += 4 + blob.readUInt32BE(at)
  return at === blob.length
}

const refused = (rule: string) => new MagsError('bad_request', `public_key: ${rule}`)
