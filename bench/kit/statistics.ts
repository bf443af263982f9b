/** What a row of a benchmark says: percentiles in milliseconds and the share that succeeded. */
export interface Row {
  readonly name: string
  readonly runs: number
  readonly p50: number
  readonly p95: number
  readonly p99: number
  readonly max: number
  /** 0 to 1. */
  readonly success: number
}

/** Nearest-rank percentiles of the runs that succeeded. */
export function summarize(name: string, samplesMs: readonly number[], failures = 0): Row {
  const sorted = samplesMs.toSorted((a, b) => a - b)
  const at = (share: number) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN
  return {
    name,
    runs: samplesMs.length + failures,
    p50: at(0.5),
    p95: at(0.95),
    p99: at(0.99),
    max: at(1),
    success: samplesMs.length / (samplesMs.length + failures),
  }
}

/** Runs one after the other; a run that throws counts as failed. */
export async function sample(
  name: string,
  runs: number,
  once: (run: number) => Promise<number>,
  between: () => Promise<void> = async () => undefined,
): Promise<Row> {
  const samples: number[] = []
  const failures: unknown[] = []
  for (let run = 0; run < runs; run++) {
    try {
      samples.push(await once(run))
    } catch (error) {
      failures.push(error)
    }
    await between()
  }
  if (failures.length > 0) process.stderr.write(`${name}: ${failures.length} of ${runs} failed, first: ${failures[0]}\n`)
  return summarize(name, samples, failures.length)
}

/** Markdown table, ratios against the named row's p50. */
export function table(rows: readonly Row[], reference?: string): string {
  const base = rows.find(({ name }) => name === reference)?.p50
  const number = (value: number) => (Number.isNaN(value) ? '–' : value.toFixed(value < 10 ? 2 : 1))
  const ratio = (row: Row) => (base === undefined ? '' : ` ${(row.p50 / base).toFixed(2)}× |`)
  const head = `| what | runs | p50 ms | p95 | p99 | max | success |${base === undefined ? '' : ' p50 ratio |'}`
  const rule = `|---|---|---|---|---|---|---|${base === undefined ? '' : '---|'}`
  const lines = rows.map(
    (row) =>
      `| ${row.name} | ${row.runs} | ${[row.p50, row.p95, row.p99, row.max].map(number).join(' | ')} | ${(row.success * 100).toFixed(1)} % |${ratio(row)}`,
  )
  return [head, rule, ...lines].join('\n')
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}
