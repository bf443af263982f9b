import { MagsError } from '@mags/protocol'
import { formatAddress, type Ipv4Range, rangeSize } from './ipv4-range.ts'

export type SlotKind = 'container' | 'tap'

/** What follows from a slot's kind and index alone, so that nothing about it has to be remembered. */
export interface SlotPlan {
  readonly kind: SlotKind
  readonly index: number
  /** Link on the bridge in the router namespace: `v<index>` (veth) or `t<index>` (tap). */
  readonly link: string
  readonly address: string
  readonly mac: string
}

/** A Linux bridge has at most 1023 ports (BR_MAX_PORTS); both kinds share them. */
export const bridgePortLimit = 1023

/** Address 1 is the router and resolver; containers have the even, taps the odd addresses from 2 on. */
export function planSlot(subnet: Ipv4Range, kind: SlotKind, index: number): SlotPlan {
  const offset = 2 + 2 * index + (kind === 'tap' ? 1 : 0)
  if (!Number.isSafeInteger(index) || index < 0 || offset >= rangeSize(subnet) - 1) {
    throw new MagsError('internal', `Network slot ${index} does not fit into the sandbox subnet; use a larger subnet.`)
  }
  const value = subnet.first + offset
  return { kind, index, link: `${kind === 'tap' ? 't' : 'v'}${index}`, address: formatAddress(value), mac: macOf(value) }
}

/** 02: locally administered, unicast; the rest is the address. */
function macOf(value: number): string {
  const bytes = [24, 16, 8, 0].map((shift) => (Math.floor(value / 2 ** shift) % 256).toString(16).padStart(2, '0'))
  return `02:4d:${bytes.join(':')}`
}

export function gatewayAddress(subnet: Ipv4Range): string {
  return formatAddress(subnet.first + 1)
}

/** A bridge without one takes the lowest of its ports, and changes it under the feet of everybody who remembers it when ports come and go. */
export function gatewayMac(subnet: Ipv4Range): string {
  return macOf(subnet.first + 1)
}

/** The slot a link of the router namespace belongs to; undefined for the bridge, the uplink and `lo`. */
export function slotOfLink(subnet: Ipv4Range, link: string): SlotPlan | undefined {
  const match = /^([vt])(\d{1,5})$/.exec(link)
  return match === null ? undefined : planSlot(subnet, match[1] === 't' ? 'tap' : 'container', Number(match[2]))
}
