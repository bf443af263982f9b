import { availableParallelism, cpus, release, totalmem } from 'node:os'
import { parseArgs } from 'node:util'
import { enterPrivateMounts } from '../../packages/daemon/src/start/private-mounts.ts'
import { table } from '../kit/statistics.ts'
import { measureForwarding } from './forwarding.ts'
import { measureFrozen } from './frozen.ts'
import { measureSsh } from './ssh.ts'
import { openStage, type Stage } from './stage.ts'
import { measureWakes } from './wakes.ts'

/**
 * The gateway in front of real sandboxes, beside nginx in the same place and no proxy at all, in one run.
 * `node --conditions=source bench/gateway/main.ts [--rounds 3] [--seconds 5] [--runs 50] [--frozen 200] [--only forwarding,wakes,ssh,frozen] [--isolation container,vm]`
 *
 * Needs root, gcc, wrk, nginx, curl, and OpenSSH's client and server. Prints markdown. Times of one machine mean little: read the ratios. Host and gateway are in this process, as they are in the daemon; server and database are not.
 */
enterPrivateMounts()
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '5' },
    runs: { type: 'string', default: '50' },
    frozen: { type: 'string', default: '200' },
    only: { type: 'string' },
    isolation: { type: 'string', default: 'container,vm' },
  },
})
const wanted = (part: string) => values.only === undefined || values.only.split(',').includes(part)
const print = (text: string) => process.stdout.write(`${text}\n`)

print(
  `machine: ${availableParallelism()} × ${cpus()[0]?.model ?? 'unknown'}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}, Node ${process.version}`,
)
for (const isolation of ['container', 'vm'] as const) {
  if (!values.isolation.split(',').includes(isolation)) continue
  await using stage = await openStage(isolation)
  // Sandboxes and their network would outlive a run that is stopped.
  let stopping: Promise<void> | undefined
  const stop = () => {
    stopping ??= stopStage(stage)
  }
  process.once('SIGINT', stop).once('SIGTERM', stop)
  try {
    await measure(stage)
  } finally {
    await stopping
    process.off('SIGINT', stop).off('SIGTERM', stop)
  }
}

async function stopStage(stage: Stage) {
  await stage[Symbol.asyncDispose]()
  process.exit(130)
}

async function measure(stage: Stage) {
  const { isolation } = stage
  if (wanted('forwarding')) {
    print(`\n## Forwarding to one server in a sandbox (${isolation})\n`)
    print(await measureForwarding(stage, { rounds: Number(values.rounds), seconds: Number(values.seconds) }))
  }
  if (wanted('wakes')) {
    print(`\n## Waking (${isolation})\n`)
    print(table(await measureWakes(stage, { runs: Number(values.runs), hibernated: Math.ceil(Number(values.runs) / 5) })))
  }
  if (wanted('ssh')) {
    print(`\n## SSH (${isolation})\n`)
    print(table(await measureSsh(stage, Number(values.runs))))
  }
  if (wanted('frozen') && isolation === 'container') {
    print(`\n## Asleep (${isolation})\n`)
    print(await measureFrozen(stage, Number(values.frozen)))
  }
}
