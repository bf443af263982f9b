import { generateKeyPair, randomBytes } from 'node:crypto'
import { promisify } from 'node:util'

export interface SshKey {
  /** OpenSSH's own format, as `ssh-keygen -t ed25519` writes it without a passphrase; ends in a line feed. */
  readonly privateKey: string
  /** `ssh-ed25519 AAAA… comment`. */
  readonly publicKey: string
}

const kind = 'ssh-ed25519'
/** Of the unencrypted format: the length that the private part is padded to. */
const blockBytes = 8
const columns = 70

/**
 * A new Ed25519 key for SSH. The formats: RFC 8709 (public key), OpenSSH's PROTOCOL.key (private key).
 * @throws RangeError for a comment with line breaks or control characters, which would make a second key of it.
 */
export async function generateSshKey(comment: string): Promise<SshKey> {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  if (/[\x00-\x1f\x7f]/.test(comment)) throw new RangeError('the comment of an SSH key is one line of text')
  const pair = await promisify(generateKeyPair)('ed25519')
  const jwk = pair.privateKey.export({ format: 'jwk' })
  const seed = Buffer.from(jwk.d ?? '', 'base64url')
  const point = Buffer.from(jwk.x ?? '', 'base64url')
  const publicBlob = Buffer.concat([field(kind), field(point)])
  // Twice the same number: a wrong passphrase would show by it.
  const check = randomBytes(4)
  const fields = Buffer.concat([check, check, field(kind), field(point), field(Buffer.concat([seed, point])), field(comment)])
  const padding = Buffer.from(Array.from({ length: (blockBytes - (fields.length % blockBytes)) % blockBytes }, (_, index) => index + 1))
  const blob = Buffer.concat([
    Buffer.from('openssh-key-v1\0', 'latin1'),
    ...[field('none'), field('none'), field(''), uint32(1), field(publicBlob)],
    field(Buffer.concat([fields, padding])),
  ])
  const lines = blob.toString('base64').match(new RegExp(`.{1,${columns}}`, 'g')) ?? []
  return {
    privateKey: ['-----BEGIN OPENSSH PRIVATE KEY-----', ...lines, '-----END OPENSSH PRIVATE KEY-----', ''].join('\n'),
    publicKey: `${kind} ${publicBlob.toString('base64')}${comment === '' ? '' : ` ${comment}`}`,
  }
}

/** `string` of RFC 4251, 5. */
function field(value: string | Buffer): Buffer {
  const bytes = Buffer.from(value)
  return Buffer.concat([uint32(bytes.length), bytes])
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
