import { startDaemon } from '../../tests/kit/daemon.ts'
import { BenchClient } from '../kit/client.ts'
import { type Row, summarize } from '../kit/statistics.ts'
import { createJob, followRun, MessageReader } from './api.ts'

const burst = 100

/** Perl prints its own clock in each line, microseconds since 1970; what a container calls the time is what we do. */
const printer = (lines: number, perTurn: number, pauseSeconds: number) =>
  `exec perl -MTime::HiRes=time,sleep -e '$| = 1; sleep 1; for my $i (1 .. ${lines}) { printf "%.0f\\n", time * 1e6; sleep ${pauseSeconds} if $i % ${perTurn} == 0 }'`

/** From a line being printed in a container until its event is read by a client that follows. */
export async function measureFollow(lines: number): Promise<Row[]> {
  await using daemon = await startDaemon({ MAGS_ISOLATION: 'container' })
  const client = new BenchClient(daemon)
  try {
    return [
      await follow(client, 'one line every 50 ms', lines, printer(lines, 1, 0.05)),
      await follow(client, `${burst} lines at once, every 500 ms`, lines, printer(lines, burst, 0.5)),
    ]
  } finally {
    client.close()
  }
}

async function follow(client: BenchClient, name: string, lines: number, script: string): Promise<Row> {
  const begin = realTime()
  const id = await createJob(client, { script })
  const read: { printed: number; at: number }[] = []
  const reader = new MessageReader((message) => read.push({ printed: Number(message) / 1000, at: performance.now() }))
  await followRun(client, id, (text) => reader.read(text))
  const end = realTime()
  // Our own clock runs evenly, the real one may be adjusted: we know both at both ends.
  const pace = (end.real - begin.real) / (end.even - begin.even)
  const samples = read.map(({ printed, at }) => begin.real + (at - begin.even) * pace - printed)
  return summarize(name, samples, lines - samples.length)
}

/** The real time in ms, as exact as our even clock: `Date.now()` is it at the moment when it goes on. */
function realTime(): { real: number; even: number } {
  const before = Date.now()
  for (;;) {
    const real = Date.now()
    if (real !== before) return { real, even: performance.now() }
  }
}
