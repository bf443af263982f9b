import { createPublicKey } from 'node:crypto'
import ssh2, { type ParsedKey, type PublicKeyAuthContext } from 'ssh2'

const kinds: ReadonlySet<string> = new Set(['ssh-ed25519', 'ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp384', 'ecdsa-sha2-nistp521', 'ssh-rsa'])
const rsaBitsMin = 2048

export interface OfferedKey {
  /** `ssh-ed25519 AAAA…`. */
  readonly text: string
  readonly parsed: ParsedKey
}

/** The key of a publickey request (RFC 4252, 7); undefined for a kind that is not taken: certificates, security keys, DSA, short RSA, RSA with SHA-1. */
export function offeredKey(request: PublicKeyAuthContext): OfferedKey | undefined {
  const { algo, data } = request.key
  if (!kinds.has(algo)) return undefined
  const hash = (request as { readonly hashAlgo?: string }).hashAlgo
  if (algo === 'ssh-rsa' && hash === undefined) return undefined
  const parsed = ssh2.utils.parseKey(data)
  if (parsed instanceof Error || parsed.type !== algo || !parsed.getPublicSSH().equals(data)) return undefined
  if (algo === 'ssh-rsa' && (createPublicKey(parsed.getPublicPEM()).asymmetricKeyDetails?.modulusLength ?? 0) < rsaBitsMin) return undefined
  return { text: `${algo} ${data.toString('base64')}`, parsed }
}

/** Whether the request proves that its sender has the private key; undefined when it only asks whether the key would do. */
export function isSigned(request: PublicKeyAuthContext, key: OfferedKey): boolean | undefined {
  if (request.signature === undefined || request.blob === undefined) return undefined
  return key.parsed.verify(request.blob, request.signature, (request as { readonly hashAlgo?: string }).hashAlgo) === true
}
