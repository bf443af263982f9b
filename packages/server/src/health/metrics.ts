import type { HostApi } from '@mags/protocol'
import { Counter, Gauge, Histogram, Registry } from 'prom-client'

/** What jobs report about themselves. */
export interface JobMetrics {
  finished(status: string, startMs: number | null): void
}

/** What saving workspaces reports. */
export interface WorkspaceMetrics {
  /** One that worked; `changed` is false when there was nothing new. */
  saved(changed: boolean, seconds: number, uploadedBytes: number): void
  saveFailed(): void
}

export interface Metrics extends JobMetrics, WorkspaceMetrics {
  readonly registry: Registry
  observeRequest(labels: { method: string; route: string; status: number }, seconds: number): void
  /** Where the numbers of jobs that are not over are read from. */
  watchJobs(counts: () => { pending: number; running: number; sleeping: number }): void
}

const saveBuckets = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120]
const startBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

/** Prometheus metrics, in a registry of their own. Read on demand; nothing is sampled in the background. */
export function createMetrics(host: HostApi): Metrics {
  const registry = new Registry()
  const registers = [registry]
  let counts = () => ({ pending: 0, running: 0, sleeping: 0 })
  const finished = new Counter({ name: 'mags_jobs_finished_total', help: 'Jobs that ended since the server started', labelNames: ['status'], registers })
  const start = new Histogram({ name: 'mags_job_start_seconds', help: 'Submit until first output', buckets: startBuckets, registers })
  const requests = new Histogram({
    name: 'mags_http_request_seconds',
    help: 'Duration of HTTP requests',
    labelNames: ['method', 'route', 'status'],
    buckets: startBuckets,
    registers,
  })
  const saves = new Counter({
    name: 'mags_workspace_saves_total',
    help: 'Attempts to save a workspace since the server started',
    labelNames: ['result'],
    registers,
  })
  const saveSeconds = new Histogram({ name: 'mags_workspace_save_seconds', help: 'Duration of saves that worked', buckets: saveBuckets, registers })
  const uploaded = new Counter({ name: 'mags_workspace_uploaded_bytes_total', help: 'Bytes that saves sent to the object store', registers })
  new Gauge({
    name: 'mags_jobs',
    help: 'Jobs that are not over',
    labelNames: ['status'],
    registers,
    collect() {
      const { pending, running, sleeping } = counts()
      this.set({ status: 'pending' }, pending)
      this.set({ status: 'running' }, running)
      this.set({ status: 'sleeping' }, sleeping)
    },
  })
  new Gauge({
    name: 'mags_sandboxes',
    help: 'Sandboxes by state',
    labelNames: ['state'],
    registers,
    collect() {
      const pool = host.poolStatus()
      for (const state of ['idle', 'busy', 'sleeping'] as const) this.set({ state }, pool[state])
    },
  })
  new Gauge({
    name: 'mags_pool_hit_ratio',
    help: 'Share of jobs that found a warm sandbox',
    registers,
    collect() {
      this.set(host.poolStatus().hitRate)
    },
  })
  new Gauge({
    name: 'process_resident_memory_bytes',
    help: 'Resident memory of the server process',
    registers,
    collect() {
      this.set(process.memoryUsage.rss())
    },
  })
  return {
    registry,
    finished: (status, startMs) => {
      finished.inc({ status })
      if (startMs !== null) start.observe(startMs / 1000)
    },
    saved: (changed, seconds, uploadedBytes) => {
      saves.inc({ result: changed ? 'saved' : 'unchanged' })
      saveSeconds.observe(seconds)
      uploaded.inc(uploadedBytes)
    },
    saveFailed: () => saves.inc({ result: 'failed' }),
    observeRequest: (labels, seconds) => requests.observe(labels, seconds),
    watchJobs: (source) => {
      counts = source
    },
  }
}
