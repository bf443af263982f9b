import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { createMetrics } from '../health/metrics.ts'
import { Dispatcher, type DispatcherDeps } from '../jobs/dispatcher.ts'
import type { Job } from '../jobs/job.ts'
import { recoverJobs } from '../jobs/recover-jobs.ts'
import { startJob } from '../jobs/start-job.ts'
import { JobStore } from '../jobs/store.ts'
import { LogStore } from '../logs/log-store.ts'
import { readRows } from '../logs/read-rows.ts'
import { openDatabase } from '../state/database.ts'
import { GroupCommit } from '../state/group-commit.ts'
import { LeftSaver } from '../workspaces/save-left.ts'
import { WorkspaceStore } from '../workspaces/store.ts'
import { realTimers, type Timers } from '../workspaces/timers.ts'
import { Turns } from '../workspaces/turns.ts'
import { FakeHost, type FakeHostOptions } from './fake-host.ts'
import { makeJob } from './make-job.ts'

export interface EngineOptions extends FakeHostOptions {
  readonly host?: FakeHost
  /** Of an engine that is to go on from the same database and logs. */
  readonly directory?: string
  readonly timers?: Timers
  readonly clock?: () => number
  readonly deps?: Partial<DispatcherDeps>
}

/** Jobs of any account and kind over a {@link FakeHost}: the part of a server behind its routes. */
export async function openEngine(options: EngineOptions = {}) {
  await using undo = new AsyncDisposableStack()
  const directory = options.directory ?? mkdtempSync(join(tmpdir(), 'mags-engine-'))
  if (options.directory === undefined) undo.defer(() => rmSync(directory, { recursive: true, force: true }))
  const host = options.host ?? new FakeHost(options)
  if (options.host === undefined) undo.defer(() => host.close())
  const database = await openDatabase({ kind: 'sqlite', path: join(directory, 'mags.db') })
  undo.defer(() => database.destroy())
  const commits = new GroupCommit(database, 'sqlite')
  const { timers = realTimers, clock = Date.now } = options
  const [store, workspaces, turns, logger, metrics] = [
    new JobStore(database, commits),
    new WorkspaceStore(database, commits),
    new Turns(),
    pino({ level: 'silent' }),
    createMetrics(host),
  ]
  const logs = new LogStore({ directory: join(directory, 'logs'), maxBytes: 1 << 20, clock })
  const left = new LeftSaver({ workspaces, host, turns, timers, clock, logger, metrics })
  undo.defer(() => left.close())
  const saving = { ...{ workspaces, turns, left, timers, clock, logger, metrics }, syncIntervalMs: 30_000, saveWaitMs: 120_000, stopSaveWaitMs: 10_000 }
  const deps = { ...{ store, host, logs, clock, logger, metrics, saving }, stopGraceMs: 20, timeoutGraceMs: 20, maxPendingJobs: 5000, ...options.deps }
  const dispatcher = new Dispatcher(deps)
  undo.defer(() => dispatcher.close())
  const kept = undo.move()
  return {
    ...{ store, workspaces, host, logs, dispatcher, directory, commits },
    start: (change: Partial<Job>) => startJob({ store, host, workspaces, commits, dispatcher }, makeJob({ script: 'echo', ...change })),
    /** Settles once it is over, with its row. */
    ended: async ({ requestId }: Pick<Job, 'requestId'>) => {
      await dispatcher.find(requestId)?.done
      return await store.get(requestId)
    },
    rows: async ({ requestId }: Pick<Job, 'requestId'>) => {
      const { rows } = await readRows(logs.bytes(requestId), { from: { record: 0, byte: 0 }, limit: 1000, maxBytes: 1 << 20, source: undefined })
      return rows.map(({ row }) => `${row.source} ${row.message}`)
    },
    recover: () => recoverJobs({ store, host, logs, workspaces, dispatcher, clock, logger }),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

export type Engine = Awaited<ReturnType<typeof openEngine>>
