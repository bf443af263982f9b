import type { ImageTaskAnswer } from '@mags/protocol'

/**
 * An image that is being made, or was.
 *
 *     running ──► completed   there is a new version, `digest`
 *        └──────► failed      refused, cancelled, or the server ended meanwhile; `error` says which, and nothing is left
 */
export interface ImageTask {
  readonly id: string
  readonly accountId: string
  /** Of the image. */
  readonly name: string
  readonly kind: 'recipe' | 'dockerfile' | 'registry' | 'archive'
  readonly reference: string
  readonly status: 'running' | 'completed' | 'failed'
  readonly digest: string | null
  readonly error: string | null
  readonly createdAt: string
  readonly completedAt: string | null
}

/** What a task becomes. */
export type TaskEnd = Pick<ImageTask, 'digest' | 'error' | 'completedAt'> & { readonly status: 'completed' | 'failed' }

export function presentTask(task: ImageTask): ImageTaskAnswer {
  return {
    task_id: task.id,
    name: task.name,
    kind: task.kind,
    reference: task.reference,
    status: task.status,
    digest: task.digest,
    error: task.error,
    created_at: task.createdAt,
    completed_at: task.completedAt,
  }
}
