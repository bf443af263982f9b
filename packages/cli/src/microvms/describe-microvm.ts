import type { MicrovmWire } from '@mags/sdk'
import { describe } from '../terminal/describe.ts'
import { table } from '../terminal/table.ts'

/** MicroVMs as `mags vm list` shows them. */
export function microvmTable(microvms: readonly MicrovmWire[]): string {
  const rows = microvms.map((vm) => [vm.name, vm.status, sizeOf(vm), vm.image, addressesOf(vm) ?? '-', vm.id])
  return table(['NAME', 'STATUS', 'SIZE', 'IMAGE', 'ADDRESS', 'ID'], rows)
}

export function describeMicrovm(vm: MicrovmWire): string {
  return describe([
    ['id', vm.id],
    ['name', vm.name],
    ['status', vm.status],
    ['error', vm.error],
    ['size', sizeOf(vm)],
    ['image', `${vm.image} (${vm.image_digest.slice(0, 19)})`],
    ['services', vm.init ? null : 'not started: its image is not booted'],
    ['isolation', vm.isolation],
    ['address', addressesOf(vm)],
    ['url', vm.url === null ? null : `${vm.url} (port ${vm.port})`],
    ['console', vm.request_id === null ? null : `mags logs ${vm.request_id}`],
    ['started', vm.started_at],
    ['created', vm.created_at],
  ])
}

const sizeOf = (vm: MicrovmWire) => `${vm.cpu} vCPU, ${vm.memory} MB, ${vm.disk} GB`

const addressesOf = (vm: MicrovmWire) => [vm.ip_address, vm.ipv6_address].filter((address) => address !== '').join(', ') || null
