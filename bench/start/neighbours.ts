import { setTimeout as delay } from 'node:timers/promises'
import type { BenchClient } from '../kit/client.ts'
import { type Row, summarize } from '../kit/statistics.ts'

/** Each takes its whole processor and does what it can to be noticed. */
const nuisances: Record<string, string> = {
  'floods its output': 'yes "$(head -c 4000 /dev/zero | tr "\\0" x)"',
  'forks without end': 'bomb() { bomb | bomb & }; bomb; while :; do sleep 1; done',
  'eats memory': 'while :; do head -c 400M /dev/zero | tail >/dev/null; done',
}

const pauseMs = 20

/** Starts of one job after the other, alone and beside each nuisance: the client waits a little between them, as no more than one job in a while is what is asked for. */
export async function neighbours(client: BenchClient, runs: number): Promise<Row[]> {
  const rows = [await starts('alone', client, runs)]
  for (const [name, script] of Object.entries(nuisances)) {
    const nuisance = await client.submit({ script, persistent: true })
    await delay(1000)
    rows.push(await starts(`beside one that ${name}`, client, runs))
    await client.stop(nuisance)
  }
  return rows
}

async function starts(name: string, client: BenchClient, runs: number): Promise<Row> {
  const samples: number[] = []
  for (let run = 0; run < runs; run++) {
    samples.push((await client.firstByte({ script: 'echo hi' })).firstByteMs)
    await delay(pauseMs)
  }
  return summarize(name, samples)
}
