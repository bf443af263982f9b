import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { access, readFile, realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { MagsError } from '@mags/protocol'
import { run } from '../../run.ts'
import type { GuestParts } from './boot-guest.ts'
import { readTscKhz } from './host-clock.ts'
import { makeInitramfs } from './initramfs.ts'
import { qemuProgram } from './machine.ts'

/** Looks at everything a guest of this host is made of. Rejects with MagsError 'not_available' when a part is missing. */
export async function readGuestParts(options: {
  kernelDir: string
  agentPath: string
  cacheDir: string
  placeholderGb: number
}): Promise<Omit<GuestParts, 'accelerator'>> {
  const { agentPath, cacheDir, placeholderGb } = options
  const kernelDir = await realpath(options.kernelDir).catch(() => missing(`the guest kernel in ${options.kernelDir}`))
  await access(agentPath).catch(() => missing(`the agent (${agentPath})`))
  const kernelPath = join(kernelDir, 'vmlinux')
  const [kernelDigest, initramfs, qemuVersion, cpuModel, tscKhz] = await Promise.all([
    digestOf(kernelPath).catch(() => missing(`the guest kernel ${kernelPath}`)),
    makeInitramfs({ agentPath, kernelDir, cacheDir }),
    readQemuVersion(),
    readCpuModel(),
    readTscKhz(),
  ])
  return { kernelPath, kernelDigest, initramfs, qemuVersion, cpuModel, tscKhz, placeholderGb }
}

async function readQemuVersion(): Promise<string> {
  const { stdout } = await run(qemuProgram, ['--version'], { timeoutMs: 10_000 }).catch((error: NodeJS.ErrnoException) =>
    error.code === 'ENOENT' ? missing(qemuProgram) : Promise.reject(error),
  )
  return stdout.split('\n')[0] ?? ''
}

/** `-cpu host` shows the guest this processor; a template from another one is not loaded. */
async function readCpuModel(): Promise<string> {
  const [processor = ''] = (await readFile('/proc/cpuinfo', 'utf8')).split('\n\n')
  const stable = processor.split('\n').filter((line) => /^(vendor_id|cpu family|model|model name|stepping|flags)\s*:/.test(line))
  return createHash('sha256').update(stable.join('\n')).digest('hex')
}

async function digestOf(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash)
  return hash.digest('hex')
}

function missing(what: string): never {
  throw new MagsError('not_available', `virtual machines need ${what}, which is not there; \`mags setup\` makes or installs it`)
}
