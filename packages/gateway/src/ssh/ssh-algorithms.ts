import type { Algorithms } from 'ssh2'

/**
 * What everybody had by 2020, of that what Node has natively. No ChaCha20: OpenSSH's client would prefer it, and here it is several times slower than AES-GCM. No finite-field exchange: one costs a core several
 * milliseconds before anybody has shown a key. No compression: memory for everybody who connects.
 */
export const sshAlgorithms: Algorithms = {
  kex: ['curve25519-sha256', 'curve25519-sha256@libssh.org', 'ecdh-sha2-nistp256', 'ecdh-sha2-nistp384', 'ecdh-sha2-nistp521'],
  serverHostKey: ['ssh-ed25519'],
  cipher: ['aes128-gcm@openssh.com', 'aes256-gcm@openssh.com', 'aes128-ctr', 'aes256-ctr'],
  hmac: ['hmac-sha2-256-etm@openssh.com', 'hmac-sha2-512-etm@openssh.com', 'hmac-sha2-256', 'hmac-sha2-512'],
  compress: ['none'],
}
