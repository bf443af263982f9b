import process from 'node:process'
import { readServerConfig, type ServerConfig } from '../config/server-config.ts'
import { takeInstanceLock } from '../start/instance-lock.ts'
import { enterPrivateMounts } from '../start/private-mounts.ts'
import { checkAddresses } from './check-addresses.ts'
import { checkCgroups } from './check-cgroups.ts'
import { checkContainers } from './check-containers.ts'
import { checkDisk } from './check-disk.ts'
import { checkImages } from './check-images.ts'
import { checkKernel } from './check-kernel.ts'
import { checkNetwork } from './check-network.ts'
import { checkPrograms } from './check-programs.ts'
import { checkStore } from './check-store.ts'
import { checkVms } from './check-vms.ts'
import type { Check, Finding } from './finding.ts'

/**
 * `mags doctor`: looks at this machine part by part. Exit code 0 when sandboxes can run, 1 when some part fails, warnings or not.
 */
export async function runDoctor({ json }: { json: boolean }): Promise<number> {
  if (process.getuid?.() !== 0) {
    process.stderr.write('mags: doctor makes a sandbox to see whether it can, so it must run as root; try: sudo mags doctor\n')
    return 1
  }
  enterPrivateMounts()
  try {
    return await examineMachine(readServerConfig({}, process.env), json)
  } catch (error) {
    process.stderr.write(`mags: ${error instanceof Error ? error.message : String(error)}\n`)
    return 1
  }
}

async function examineMachine(config: ServerConfig, json: boolean): Promise<number> {
  // What it makes has fixed names, so that the next one finds what one that was killed has left.
  await using _lock = await takeInstanceLock(`doctor-${config.instance}`, 'another mags doctor is at work; wait for its end')
  const checks: Check[] = [
    checkKernel,
    checkPrograms,
    checkCgroups,
    checkImages(config.systemDir),
    checkDisk(config.dataDir),
    checkStore(config),
    checkContainers(config),
    checkVms(config),
    checkNetwork(config),
    checkAddresses(config),
  ]
  const findings = []
  for (const check of checks) {
    const finding = await examine(check)
    findings.push({ part: check.part, ...finding })
    if (!json) printFinding(check.part, finding)
  }
  if (json) process.stdout.write(`${JSON.stringify({ findings }, undefined, 2)}\n`)
  return findings.some(({ status }) => status === 'failure') ? 1 : 0
}

async function examine(check: Check): Promise<Finding> {
  try {
    return await check.run()
  } catch (error) {
    return { status: 'failure', found: error instanceof Error ? error.message : String(error) }
  }
}

const marks = { ok: 'ok     ', warning: 'warning', failure: 'FAILURE' } as const

function printFinding(part: string, { status, found, advice }: Finding) {
  const lines = found.split('\n').map((line, index) => (index === 0 ? `${marks[status]}  ${part.padEnd(10)}  ${line}` : `${' '.repeat(21)}${line}`))
  if (advice !== undefined) lines.push(`${' '.repeat(21)}→ ${advice}`)
  process.stdout.write(`${lines.join('\n')}\n`)
}
