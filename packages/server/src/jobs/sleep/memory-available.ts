import { readFile } from 'node:fs/promises'

/** Share of this machine's memory that programs could still have, 0 to 1 (proc_meminfo(5)). */
export async function memoryAvailable(path = '/proc/meminfo'): Promise<number> {
  const text = await readFile(path, 'utf8')
  const read = (name: string) => Number(new RegExp(`^${name}: +(\\d+) kB$`, 'm').exec(text)?.[1])
  const share = read('MemAvailable') / read('MemTotal')
  return Number.isFinite(share) ? share : 1
}
