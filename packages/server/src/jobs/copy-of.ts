import type { Job } from './job.ts'
import { newJob } from './new-job.ts'

/** The job of a copy: like its source, but for what names it and what it has done. Its deadline, if the script has one, counts anew. */
export function copyOf(source: Job, { requestId, name, now }: { readonly requestId: string; readonly name: string; readonly now: number }): Job {
  const { accountId, script, environment, startupCommand, noSleep, timeoutSeconds, persistent, vcpus, memoryMb, diskGb, port, image, egress } = source
  const draft = {
    ...{ accountId, script, environment, startupCommand, noSleep, timeoutSeconds, persistent, vcpus, memoryMb, diskGb, port, image, egress },
    requestId,
    name,
    isolationWish: wishOf(source),
    // Its files are changes to that version.
    imageDigest: source.imageDigest,
    // What it starts from must stay as long as it does. Uploaded files are where its script has put them by now.
    baseWorkspaceId: source.workspaceId ?? source.baseWorkspaceId,
    baseStorageId: source.workspaceStorageId ?? source.baseStorageId,
    // The same server runs in it.
    urlUsed: source.urlUsed,
    forkedFrom: source.requestId,
  }
  return newJob(draft, now)
}

/** The wall that its source has: what `auto` means may change. */
function wishOf({ isolation, isolationWish }: Job): Job['isolationWish'] {
  if (isolation === null) return isolationWish
  return isolation === 'container' ? 'container' : 'vm'
}
