import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os'
import { parseArgs } from 'node:util'
import { table } from '../kit/statistics.ts'
import { measureFairness } from './fairness.ts'
import { measureFollow } from './follow.ts'
import { measureImages } from './images.ts'
import { measureMicrovms } from './microvms.ts'
import { measureSizes } from './sizes.ts'
import { measureStateful } from './stateful.ts'
import { measureTemplates } from './templates.ts'

/**
 * The Jobs API, templates, microVMs and images on real sandboxes, beside their peers in one run.
 * `node --conditions=source bench/jobs/main.ts [--only follow,fairness,sizes,stateful,microvms,images,templates] [--lines 2000] [--queued 1000] [--runs 50] [--rounds 5] [--isolation container,vm]`
 *
 * Needs root, the image debian-12, skopeo, umoci and erofs-utils. Prints markdown. Times of one machine mean little: read the ratios.
 */
const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    lines: { type: 'string', default: '2000' },
    queued: { type: 'string', default: '1000' },
    runs: { type: 'string', default: '50' },
    rounds: { type: 'string', default: '5' },
    isolation: { type: 'string', default: 'container,vm' },
  },
})
const wanted = (part: string) => values.only === undefined || values.only.split(',').includes(part)
const [lines, queued, runs, rounds] = [Number(values.lines), Number(values.queued), Number(values.runs), Number(values.rounds)]
const print = (text: string) => process.stdout.write(`${text}\n`)

print(
  `machine: ${availableParallelism()} × ${cpus()[0]?.model ?? 'unknown'}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}, Node ${process.version}, load ${loadavg()[0]?.toFixed(2)} at the beginning`,
)

if (wanted('follow')) {
  print('\n## A line printed in a container → its event read over HTTP (goal 50 ms)\n')
  print(table(await measureFollow(lines)))
}

if (wanted('fairness')) {
  print(`\n## A job of one account while another has ${queued} in the queue: accepted → first byte (goal 1,000 ms)\n`)
  const short = { jobs: queued, tries: 20, pauseMs: 250, toTheEnd: true, environment: {} }
  const long = { jobs: queued, tries: 20, pauseMs: 700, toTheEnd: false }
  const results = [
    await measureFairness({ ...short, name: 'jobs of `true`', script: 'true' }),
    await measureFairness({ ...short, name: 'jobs of `sleep 0.05`', script: 'sleep 0.05' }),
    await measureFairness({ ...long, name: 'jobs of `sleep 5`, room for 8 sandboxes', script: 'sleep 5', environment: { MAGS_POOL_MAX: '8' } }),
    await measureFairness({
      ...long,
      name: 'the same, 6 running per account',
      script: 'sleep 5',
      environment: { MAGS_POOL_MAX: '8', MAGS_ACCOUNT_MAX_RUNNING: '6' },
    }),
  ]
  print(table(results.map(({ row }) => row)))
  print(`\n${results.map(({ words }) => `- ${words}`).join('\n')}`)
}

if (wanted('sizes')) {
  for (const isolation of ['container', 'vm'] as const) {
    if (!values.isolation.split(',').includes(isolation)) continue
    print(`\n## A size that is warm, and one that is made on demand (${isolation})\n`)
    print(table(await measureSizes(isolation, isolation === 'vm' ? Math.ceil(runs / 5) : runs)))
  }
}

if (wanted('stateful')) {
  print('\n## Runs of a stateful job, one after the other: 326 MB / 20k files kept, 20k files elsewhere (container)\n')
  const rows = await measureStateful(rounds)
  print(table(rows, rows.at(-1)?.name))
}

if (wanted('microvms')) {
  const { rows, words } = await measureMicrovms(rounds)
  print('\n## A microVM of debian-12 with systemd: 2 vCPUs, 512 MB\n')
  print(`${table(rows)}\n\n${words}`)
}

if (wanted('images')) {
  for (const { name, rows } of await measureImages(rounds)) {
    print(`\n## Images: ${name}\n`)
    print(table(rows, rows[0]?.name))
  }
}

if (wanted('templates')) {
  print('\n## A list of 10,000 templates, 20 a page\n')
  print(table(await measureTemplates(runs * 4)))
}
