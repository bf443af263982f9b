/** What the API answers, as it stands on the wire. Members that are not known yet are null; times are RFC 3339 UTC. */

/** `emulated-vm` is a virtual machine without hardware help; `container` shares the host's kernel. */
export type Isolation = 'kvm' | 'emulated-vm' | 'container'

export type JobState = 'pending' | 'running' | 'completed' | 'error' | 'sleeping' | 'stopped'

export interface SubmitWire {
  request_id: string
  status: string
  message: string
  /** Members of the request that this server does not know. */
  warnings?: string[]
}

export interface StatusWire {
  request_id: string
  name: string
  status: JobState
  vm_id: string | null
  persistent: boolean
  subdomain: string
  url: string | null
  sleeping: boolean
  exit_code: number | null
  queue_duration_ms: number | null
  acquire_duration_ms: number | null
  attach_duration_ms: number | null
  first_byte_duration_ms: number | null
  /** The sum of the four before: accepted until the first output. */
  start_duration_ms: number | null
  script_duration_ms: number | null
  created_at: string
  started_at: string | null
  completed_at: string | null
  workspace_id: string | null
  image: string
  /** The wall it got; null until a sandbox was taken. */
  isolation: Isolation | null
  vcpus: number
  memory_mb: number
  disk_gb: number
  port: number
  no_sleep: boolean
  startup_command: string | null
  /** Why it ended as it did, where the exit code does not say it. */
  error: string | null
}

export interface LogRowWire {
  timestamp: string
  level: string
  message: string
  source: 'stdout' | 'stderr' | 'system'
  /** The true bytes, where they are not valid UTF-8. */
  base64?: string
  /** True when the bytes do not end with a newline; otherwise one follows the message. */
  partial?: boolean
}

export interface LogsWire {
  logs: LogRowWire[]
  /** Cursor of the last row, to go on `after`. */
  next: string
}

export interface JobListWire {
  jobs: {
    request_id: string
    job_id: string
    name: string
    status: JobState
    workspace_id: string | null
    exit_code: number | null
    created_at: string
  }[]
  total: number
  page: number
  page_size: number
}

/** What stop and update answer. */
export interface DoneWire {
  success: boolean
  message: string
}

export interface ExecWire {
  exit_code: number
  stdout: string
  stderr: string
  duration_ms: number
  /** True when the output was longer than the server keeps. */
  truncated: boolean
}

export interface PoolStatusWire {
  idle_vms: number
  busy_vms: number
  total_vms: number
  min_pool_size: number
  /** 0: no cap. */
  max_pool_size: number
  sleeping_vms: number
  isolation: Isolation
  /** Share of jobs that found a warm sandbox, 0 to 1. */
  hit_rate: number
  /** Why no sandbox can be made, while none can. */
  last_failure: string | null
}

export interface HealthWire {
  status: string
  version: string
  isolation: Isolation
}
