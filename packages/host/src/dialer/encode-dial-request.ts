import { isIPv6 } from 'node:net'
import type { ProcessIdentity } from '../recover/process-identity.ts'

export interface DialRequest {
  /** Any process of the sandbox: the connection is made in its network namespace, and only if it lives still when that is done. */
  readonly process: ProcessIdentity
  /** One to three, tried in this order: IPv4, or `::1`. */
  readonly addresses: readonly string[]
  readonly port: number
  /** For all addresses together. */
  readonly timeoutMs: number
}

const requestBytes = 72
const addressesAt = 24
const addressBytes = 16
const addressesMax = 3

/** The layout is at the top of native/mounter/dial-request.h. Throws RangeError on what does not fit it. */
export function encodeDialRequest(id: number, { process, addresses, port, timeoutMs }: DialRequest): Buffer {
  if (addresses.length < 1 || addresses.length > addressesMax) throw new RangeError(`${addresses.length} addresses to dial`)
  if (!Number.isInteger(port) || port < 1 || port > 65_535) throw new RangeError(`${port} is not a port`)
  const bytes = Buffer.alloc(requestBytes)
  bytes.writeUInt32LE(id, 0)
  bytes.writeUInt32LE(process.pid, 4)
  bytes.writeBigUInt64LE(BigInt(process.startTicks), 8)
  bytes.writeUInt32LE(timeoutMs, 16)
  bytes.writeUInt16LE(port, 20)
  bytes.writeUInt8(addresses.length, 22)
  for (const [place, address] of addresses.entries()) writeAddress(bytes.subarray(addressesAt + place * addressBytes), address)
  return bytes
}

function writeAddress(bytes: Buffer, address: string) {
  if (isIPv6(address)) {
    if (address !== '::1') throw new RangeError(`${address}: of IPv6 sandboxes have only ::1`)
    bytes[addressBytes - 1] = 1
    return
  }
  const parts = address.split('.').map(Number)
  if (parts.length !== 4 || parts.some((part) => !Number.isInteger(part) || part < 0 || part > 255)) throw new RangeError(`${address} is not an address`)
  bytes.set([0xff, 0xff, ...parts], 10)
}
