import { access, constants } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import process from 'node:process'
import { type Check, failure, ok } from './finding.ts'

/** Program and the Debian package it comes from. */
const programs = [
  ['crun', 'crun'],
  ['qemu-system-x86_64', 'qemu-system-x86'],
  ['ip', 'iproute2'],
  ['nft', 'nftables'],
  ['dnsmasq', 'dnsmasq-base'],
  ['mkfs.ext4', 'e2fsprogs'],
  ['mkfs.erofs', 'erofs-utils'],
  ['unshare', 'util-linux'],
  ['nsenter', 'util-linux'],
] as const

export const checkPrograms: Check = {
  part: 'programs',
  async run() {
    const missing = []
    for (const [program, debianPackage] of programs) if (!(await isOnPath(program))) missing.push({ program, debianPackage })
    if (missing.length === 0) return ok(`all ${programs.length} are installed`)
    const packages = [...new Set(missing.map(({ debianPackage }) => debianPackage))].join(' ')
    return failure(`missing: ${missing.map(({ program }) => program).join(', ')}`, `./mags setup installs them; by hand: apt-get install ${packages}`)
  },
}

async function isOnPath(program: string) {
  for (const dir of (process.env.PATH ?? '').split(delimiter)) {
    const found = await access(join(dir, program), constants.X_OK).then(
      () => true,
      () => false,
    )
    if (found) return true
  }
  return false
}
