import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { EgressPolicy } from '@mags/protocol'
import { readRecord, writeRecord } from '../recover/record-file.ts'

/**
 * The policy of a slot, for the next daemon: rules in the kernel have lost their words. Written before the rules, so it is never older than they are; `generation` is the
 * slot's number under it. A slot with a higher number was renewed since, and has none.
 */
export interface EgressRecord {
  readonly generation: number
  readonly policy: EgressPolicy
}

export const egressRecordsDir = (runDir: string) => join(runDir, 'egress')
const fileOf = (runDir: string, link: string) => join(egressRecordsDir(runDir), `${link}.json`)

export async function writeEgressRecord(runDir: string, link: string, record: EgressRecord) {
  await mkdir(egressRecordsDir(runDir), { recursive: true, mode: 0o700 })
  await writeRecord(fileOf(runDir, link), record)
}

export async function readEgressRecord(runDir: string, link: string): Promise<EgressRecord | undefined> {
  return await readRecord<EgressRecord>(fileOf(runDir, link))
}

export async function removeEgressRecords(runDir: string, links: readonly string[]) {
  await Promise.all(links.map((link) => rm(fileOf(runDir, link), { force: true })))
}

/** Records of slots that are not among these. */
export async function sweepEgressRecords(runDir: string, links: ReadonlySet<string>) {
  const names = await readdir(egressRecordsDir(runDir)).catch(() => [])
  const gone = names.map((name) => name.replace(/\.json$/, '')).filter((link) => !links.has(link))
  await removeEgressRecords(runDir, gone)
}
