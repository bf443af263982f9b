/** What the API answers, as it stands on the wire. Members that are not known yet are null; times are RFC 3339 UTC. */

/** `emulated-vm` is a virtual machine without hardware help; `container` shares the host's kernel. */
export type Isolation = 'kvm' | 'emulated-vm' | 'container'

export type JobState = 'pending' | 'running' | 'completed' | 'error' | 'sleeping' | 'stopped'

/** `frozen`: memory is kept; `hibernated`: it is on disk; `released`: there is no sandbox until the next wake. */
export type SleepStage = 'frozen' | 'hibernated' | 'released'

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
  base_workspace_id: string | null
  /** The newest version that the job began with or saved. */
  workspace_version: number | null
  /** When its workspace was last known to be in the object store. */
  synced_at: string | null
  /** When saving its workspace began to fail; null while all is well. */
  workspace_unsaved_since: string | null
  workspace_size_bytes: number | null
  /** In all saves of this job. */
  workspace_bytes_uploaded: number | null
  image: string
  /** The wall it got; null until a sandbox was taken. */
  isolation: Isolation | null
  vcpus: number
  memory_mb: number
  disk_gb: number
  port: number
  no_sleep: boolean
  startup_command: string | null
  /** Who may see its URL. */
  visibility: 'public' | 'token'
  /** Request id of the job it is a copy of. */
  forked_from: string | null
  sleep_stage: SleepStage | null
  slept_at: string | null
  woken_at: string | null
  /** What woke it last: http, ssh, exec, files, request. */
  wake_reason: string | null
  wake_duration_ms: number | null
  egress: 'none' | { allow?: string[]; deny?: string[] } | null
  egress_bytes: number | null
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

/** What stop, update and delete answer. */
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

export interface SshAccessWire {
  success: boolean
  message: string
  access_type: 'ssh_proxy'
  ssh_host: string
  ssh_port: number
  /** OpenSSH format; the user is root. */
  ssh_private_key: string
}

export interface UrlAccessWire {
  success: boolean
  message: string
  access_type: 'http_proxy'
  url: string
  subdomain: string
  ipv6_address: string | null
  port: number
}

export interface SleepWire extends DoneWire {
  status: JobState
  sleep_stage: SleepStage | null
}

export interface WakeWire extends DoneWire {
  status: JobState
  /** Null when it was awake. */
  wake_duration_ms: number | null
}

export interface ForkJobWire extends SubmitWire {
  /** Whether memory and processes were copied, or files only. */
  with_memory: boolean
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

/** `total`, and where in it the answer stands. */
interface PageWire {
  total: number
  page: number
  page_size: number
}

export interface WorkspaceWire {
  workspace_id: string
  /** All files of the newest version; what the image has is not counted. */
  size_bytes: number
  /** The newest; 0 until it was saved for the first time. */
  version: number
  created_at: string
  updated_at: string
  /** When all changes were last known to be in the object store. */
  synced_at: string | null
  /** Request id of the job that holds it. */
  in_use_by: string | null
  base_workspace_id: string | null
  /** Only what lies below this folder is kept; null: the whole file system. */
  scope: string | null
  /** Jobs on it need this image. */
  image: string
  disk_gb: number
  /** When saving it began to fail; null while all is well. The changes are kept on the machine meanwhile. */
  unsaved_since: string | null
  /** Why the last attempt failed. */
  save_error: string | null
}

export interface WorkspaceListWire extends PageWire {
  workspaces: WorkspaceWire[]
}

export interface WorkspaceVersionWire {
  version: number
  created_at: string
  reason: 'sync' | 'fork' | 'restore'
  size_bytes: number
  /** Paths. */
  entry_count: number
  /** What went to the object store for it. */
  uploaded_bytes: number
  image: string
}

export interface WorkspaceVersionListWire extends PageWire {
  versions: WorkspaceVersionWire[]
}

export interface RestoreWorkspaceWire {
  success: boolean
  workspace_id: string
  /** The new version, with the contents of the one asked for. */
  version: number
}

export interface WorkspacePathStateWire {
  /** `removed`: the version hides a path of the image. */
  kind: 'directory' | 'file' | 'symlink' | 'fifo' | 'socket' | 'removed'
  size_bytes: number
  mode: number
}

export interface WorkspaceDifferenceWire {
  path: string
  change: 'added' | 'changed' | 'removed'
  before: WorkspacePathStateWire | null
  after: WorkspacePathStateWire | null
  /** Lines as `diff -u` shows them. */
  content?: string
}

export interface WorkspaceDiffWire {
  workspace_id: string
  from: number
  to: number
  differences: WorkspaceDifferenceWire[]
  /** There are more than `limit`. */
  truncated: boolean
}

export interface SyncWire {
  success: boolean
  workspace_id: string
  version: number
  /** 0 when nothing had changed. */
  bytes_uploaded: number
}

export interface UploadedFileWire {
  file_id: string
  file_name: string
  size: number
}

/** The same as it is listed. */
export interface UploadedFileStatusWire extends UploadedFileWire {
  created_at: string
  /** When it was uploaded or a job last named it; 30 days later it is deleted. */
  last_used_at: string
}

export interface UploadedFileListWire extends PageWire {
  files: UploadedFileStatusWire[]
}

export interface SandboxFileWire {
  name: string
  type: 'directory' | 'file' | 'symlink' | 'fifo' | 'socket' | 'device'
  size: number
  /** Octal, such as `0755`. */
  mode: string
  mtime: string
}

export interface SandboxFileListWire {
  path: string
  /** By name; links as links. */
  entries: SandboxFileWire[]
  /** There are more than were asked for. */
  truncated: boolean
}

export interface UrlAliasWire {
  subdomain: string
  workspace_id: string
  domain: string | null
  /** null when the server has no apps domain. */
  url: string | null
  created_at: string
  updated_at: string
}

export interface UrlAliasListWire extends PageWire {
  aliases: UrlAliasWire[]
}

export interface CronRunWire {
  run_id: string
  /** When it was due; of a manual one when it was asked for. */
  scheduled_for: string
  /** `catch_up`: it was due while no server ran. */
  cause: 'schedule' | 'catch_up' | 'manual'
  /** Of its job once it has one. */
  status: 'starting' | 'waiting' | 'skipped' | 'failed' | JobState
  /** Why it waits, was skipped, or failed to start. */
  reason: string | null
  request_id: string | null
  started_at: string | null
  completed_at: string | null
  exit_code: number | null
}

export interface CronRunListWire extends PageWire {
  runs: CronRunWire[]
}

/** With what else was given of a submit. */
export interface CronWire {
  cron_id: string
  name: string
  schedule: string
  timezone: string
  script: string
  enabled: boolean
  overlap: 'skip' | 'queue' | 'allow'
  /** null while it is disabled. */
  next_run_at: string | null
  /** The newest, whatever became of it. */
  last_run: CronRunWire | null
  /** Why it cannot be scheduled. */
  error: string | null
  created_at: string
  updated_at: string
  type?: 'inline' | 'url'
  workspace_id?: string
  base_workspace_id?: string
  persistent?: boolean
  startup_command?: string
  environment?: Record<string, string>
  file_ids?: string[]
  timeout?: number
  no_sleep?: boolean
  disk_gb?: number
  vcpus?: number
  memory_mb?: number
  image?: string
  isolation?: 'auto' | 'vm' | 'container'
  port?: number
  egress?: 'none' | { allow?: string[]; deny?: string[] }
}

export interface CronListWire extends PageWire {
  crons: CronWire[]
}
