import type { DoneWire, Isolation, LogRowWire } from './answers.ts'

/** What the Jobs API answers, as it stands on the wire. */

export type JobRunState = 'not_started' | 'in_progress' | 'completed' | 'failed' | 'cancelled' | 'error'

/** A job as it is defined; each of its runs has an id of its own. */
export interface JobWire {
  id: string
  name: string
  description: string | null
  script_type: string
  script: string
  vcpus: number
  memory_mb: number
  environment: Record<string, string>
  stateful: boolean
  /** null unless it is stateful. */
  workspace_id: string | null
  workspace_size_gb: number | null
  persist: boolean
  ip_lease: boolean
  proxy_port: number
  /** null: the one of the server. */
  image: string | null
  isolation: 'auto' | 'vm' | 'container'
  timeout: number | null
  max_retries: number
  retry_backoff_seconds: number
  priority: number
  /** What it may reach; null: what the server allows. */
  egress: 'none' | { allow?: string[]; deny?: string[] } | null
  template_id: string | null
  template_revision: number | null
  created_at: string
  updated_at: string
  /** Id of the token it was made with. */
  user_id: string
  last_run: JobRunWire | null
  warnings?: string[]
}

/** `details`: with how many runs it has had, by status. */
export interface JobDetailsWire extends JobWire {
  runs: { total: number } & Record<JobRunState, number>
}

export interface JobWireList {
  jobs: JobWire[]
  total: number
  page: number
  page_size: number
}

export interface JobCreatedWire {
  /** Of its first run, and the id of the job. */
  request_id: string
  status: string
  message: string
  warnings?: string[]
}

export interface JobRunWire {
  id: string
  job_id: string
  job_name: string
  status: JobRunState
  started_at: string | null
  completed_at: string | null
  duration_ms: number | null
  exit_code: number | null
  error: string | null
  /** The machine it runs on, once it has a sandbox. */
  agent_id: string | null
  request_id: string
  created_at: string
  /** Which try it is, from 1. */
  attempt: number
  max_retries: number
}

export interface CancelJobWire extends DoneWire {
  status: JobRunState
}

export interface JobRunListWire {
  runs: JobRunWire[]
  total: number
  page: number
  page_size: number
}

export interface VmInfoWire {
  vm_id: string | null
  agent_id: string | null
  /** Addresses are empty until there is a lease. */
  ip_address: string
  ipv4_address: string
  ipv6_address: string
}

export interface JobStatusWire {
  request_id: string
  name: string
  status: JobRunState
  /** The last lines. */
  logs: string[]
  duration: number | null
  script_duration_ms: number | null
  exit_code: number | null
  started_at: string | null
  completed_at: string | null
  error_message: string | null
  vm_info: VmInfoWire | null
  persist: boolean
  ipv6_address: string | null
  /** null unless it is persistent. */
  proxy_url: string | null
  job_id: string
  created_at: string
  workspace_id: string | null
  sleeping: boolean
  image: string
  isolation: Isolation | null
  vcpus: number
  memory_mb: number
  /** Whether a warm sandbox was there for it. */
  warm: boolean | null
  attempt: number
  max_retries: number
  /** When the next try begins, while it waits for it. */
  retry_at: string | null
  queue_duration_ms: number | null
  acquire_duration_ms: number | null
  attach_duration_ms: number | null
  first_byte_duration_ms: number | null
  start_duration_ms: number | null
}

export interface JobLogsWire {
  logs: LogRowWire[]
  next: string
}

export interface TemplateRevisionWire {
  id: string
  template_id: string
  /** From 1. */
  revision: number
  script: string
  environment: Record<string, string>
  comment: string | null
  created_at: string
  created_by: string
}

export interface TemplateWire {
  id: string
  name: string
  created_at: string
  updated_at: string
  user_id: string
  description: string | null
  script_type: string
  default_vcpus: number
  default_memory_mb: number
  latest_revision: TemplateRevisionWire
  warnings?: string[]
}

export interface TemplateListWire {
  templates: TemplateWire[]
  total: number
  page: number
  page_size: number
}

export interface TemplateRevisionListWire {
  revisions: TemplateRevisionWire[]
  total: number
  page: number
  page_size: number
}

export type MicrovmState = 'creating' | 'running' | 'stopping' | 'stopped' | 'error'

export interface MicrovmWire {
  id: string
  name: string
  status: MicrovmState
  cpu: number
  /** MB. */
  memory: number
  /** GB. */
  disk: number
  image: string
  /** Empty without a leased address. */
  ip_address: string
  ipv6_address: string
  created_at: string
  isolation: Isolation | null
  /** Whether it boots the image's init, with its services. */
  init: boolean
  url: string | null
  port: number
  error: string | null
  ssh_port: number | null
  key_generated: boolean
  ip_lease: boolean
  started_at: string | null
  /** The newest job it runs, or ran, as: the log of that is its console. */
  request_id: string | null
  image_digest: string
  /** Its disk. */
  workspace_id: string
  warnings?: string[]
}

export interface MicrovmListWire {
  microvms: MicrovmWire[]
  total: number
  page: number
  page_size: number
}

export interface MicrovmStateWire {
  success: boolean
  status: MicrovmState
  error?: string
}

export interface SshConnectionWire {
  /** To be pasted. */
  ssh_command: string
  ip_address: string
  ipv6_address: string
  /** Whether the key was made by the server: then it can be downloaded. */
  key_generated: boolean
  host: string
  port: number
  user: 'root'
  /** What the downloaded key is called; null when none was made. */
  key_file: string | null
}
