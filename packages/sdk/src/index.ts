export type { AccessOptions, ForkJobOptions, SleepOptions } from './access/access.ts'
export type { UrlAliasOptions } from './aliases/url-aliases.ts'
export { type ConfigOptions, defaultApiUrl, isLoopback, type ResolvedConfig, resolveConfig } from './config/resolve-config.ts'
export type { CronChanges, CronOptions } from './cron/crons.ts'
export { connectionErrorFrom, MagsApiError, MagsConnectionError, MagsProtocolError } from './errors.ts'
export type { OnProgress } from './files/local-file.ts'
export type { CopyOptions, ListFilesOptions, ReadOptions, WriteOptions } from './files/sandbox-files.ts'
export type { UploadManyOptions, UploadOptions, UploadSource } from './files/uploads.ts'
export type { Bytes } from './http/content.ts'
export { fetchTransport, type Transport, type TransportRequest, type TransportResponse } from './http/transport.ts'
export { wait } from './http/wait.ts'
export type { BuildImageOptions, ImagesClient, ImageTaskEvent, ImportImageOptions } from './images/images-client.ts'
export type { ExecEvent, ExecOptions } from './jobs/exec.ts'
export type { FollowedRow, FollowOptions, JobEvent } from './jobs/follow-events.ts'
export type { LogsOptions } from './jobs/logs.ts'
export type { NewOptions, RunOptions, RunResult } from './jobs/run.ts'
export type { CallOptions, ListOptions, PageOptions, UpdateOptions } from './jobs/status.ts'
export type { CreateJobOptions, JobsClient, RunJobOptions, UpdateJobOptions } from './jobs-api/jobs-client.ts'
export type { CreateMicrovmOptions, MicrovmsClient } from './jobs-api/microvms-client.ts'
export type { CreateTemplateOptions, TemplatesClient, UpdateTemplateOptions } from './jobs-api/templates-client.ts'
export { Mags, type MagsOptions } from './mags.ts'
export type {
  CronListWire,
  CronRunListWire,
  CronRunWire,
  CronWire,
  DoneWire,
  ExecWire,
  ForkJobWire,
  HealthWire,
  Isolation,
  JobListWire,
  JobState,
  LogRowWire,
  LogsWire,
  PoolStatusWire,
  RestoreWorkspaceWire,
  SandboxFileListWire,
  SandboxFileWire,
  SleepStage,
  SleepWire,
  SshAccessWire,
  StatusWire,
  SubmitWire,
  SyncWire,
  UploadedFileListWire,
  UploadedFileStatusWire,
  UploadedFileWire,
  UrlAccessWire,
  UrlAliasListWire,
  UrlAliasWire,
  WakeWire,
  WorkspaceDifferenceWire,
  WorkspaceDiffWire,
  WorkspaceListWire,
  WorkspacePathStateWire,
  WorkspaceVersionListWire,
  WorkspaceVersionWire,
  WorkspaceWire,
} from './wire/answers.ts'
export type {
  ImageListWire,
  ImageSourceWire,
  ImageTaskStartedWire,
  ImageTaskWire,
  ImageVersionWire,
  ImageWire,
  InspectedImageWire,
  PrunedCacheWire,
} from './wire/image-answers.ts'
export type {
  CancelJobWire,
  JobCreatedWire,
  JobDetailsWire,
  JobRunListWire,
  JobRunState,
  JobRunWire,
  JobStatusWire,
  JobWire,
  JobWireList,
  MicrovmListWire,
  MicrovmState,
  MicrovmStateWire,
  MicrovmWire,
  SshConnectionWire,
  TemplateListWire,
  TemplateRevisionListWire,
  TemplateRevisionWire,
  TemplateWire,
  VmInfoWire,
} from './wire/jobs-api-answers.ts'
export { logRowBytes } from './wire/log-row-bytes.ts'
export type { Answer } from './wire/names.ts'
export type { DiffOptions, ForkOptions } from './workspaces/workspaces.ts'
