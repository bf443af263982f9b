import { availableParallelism, cpus, release, totalmem } from 'node:os'
import { parseArgs } from 'node:util'
import { startDaemon } from '../../tests/kit/daemon.ts'
import { BenchClient } from '../kit/client.ts'
import { type Row, table } from '../kit/statistics.ts'
import { breakdown } from './breakdown.ts'
import { burst } from './burst.ts'
import { coldQemu } from './cold-qemu.ts'
import { commandLine } from './command-line.ts'
import { warmStart } from './first-byte.ts'
import { idleMemory } from './idle-memory.ts'
import { neighbours } from './neighbours.ts'
import { peers } from './peers.ts'
import { sustained } from './sustained.ts'

/**
 * The start path, measured in one run beside its peers. `node bench/start/main.ts [--runs 200] [--jobs 10000] [--only container,vm,burst,…]`
 *
 * Prints markdown. Times of one machine mean little: read the ratios.
 */
const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '200' },
    jobs: { type: 'string', default: '2000' },
    density: { type: 'string', default: '50' },
    only: { type: 'string' },
  },
})
const runs = Number(values.runs)
const wanted = (part: string) => values.only === undefined || values.only.split(',').includes(part)
const print = (text: string) => process.stdout.write(`${text}\n`)

print(
  `machine: ${availableParallelism()} × ${cpus()[0]?.model ?? 'unknown'}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}, Node ${process.version}`,
)

if (wanted('container') || wanted('peers')) {
  const rows: Row[] = []
  await using daemon = await startDaemon({ MAGS_ISOLATION: 'container' })
  const client = new BenchClient(daemon)
  if (wanted('container')) {
    const measured = await warmStart('Mags container, submit → first byte', client, runs, { isolation: 'container' })
    rows.push(...measured.rows)
    print('\n## Where the start goes (container)\n')
    print(await breakdown(client, measured.requestIds))
  }
  if (wanted('peers')) rows.push(...(await peers(Math.max(20, Math.round(runs / 4)))))
  if (wanted('cli')) rows.push(await commandLine(daemon, 20))
  print('\n## Submit to first byte, warm container, and its peers (cold, whole process)\n')
  print(table(rows, rows[0]?.name))
  client.close()
}

if (wanted('vm')) {
  await using daemon = await startDaemon({ MAGS_ISOLATION: 'vm' })
  const client = new BenchClient(daemon)
  const measured = await warmStart('Mags vm, submit → first byte', client, Math.round(runs / 4), { isolation: 'vm' })
  print('\n## Submit to first byte, vm\n')
  print(table([...measured.rows, await coldQemu(10)], measured.rows[0]?.name))
  print('')
  print(await breakdown(client, measured.requestIds))
  client.close()
}

if (wanted('burst')) {
  await using daemon = await startDaemon({ MAGS_ISOLATION: 'container' })
  const client = new BenchClient(daemon)
  print('\n## 100 submits at once, pool of 3\n')
  print(table([await burst(client, 100)]))
  client.close()
}

if (wanted('neighbours')) {
  await using daemon = await startDaemon({ MAGS_ISOLATION: 'container' })
  const client = new BenchClient(daemon)
  const rows = await neighbours(client, runs)
  print('\n## Start of a job beside a nuisance (container)\n')
  print(table(rows, rows[0]?.name))
  client.close()
}

if (wanted('sustained')) {
  await using daemon = await startDaemon({ MAGS_ISOLATION: 'container' })
  const client = new BenchClient(daemon)
  print(`\n## ${values.jobs} jobs by 2 clients\n`)
  print(await sustained(client, daemon.pid, Number(values.jobs)))
  client.close()
}

if (wanted('memory')) {
  print(`\n## Memory of an idle warm sandbox, ${values.density} of them\n`)
  print(await idleMemory(Number(values.density)))
}
