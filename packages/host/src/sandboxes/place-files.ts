import type { SandboxFiles, ScriptFile } from '@mags/protocol'

const atOnce = 4

/** Writes a job's files into its sandbox, before the script. Rejects with the first failure, once none is being written any more. */
export async function placeFiles(sandbox: SandboxFiles, files: readonly ScriptFile[]): Promise<void> {
  const waiting = files.values()
  let failure: { readonly error: unknown } | undefined
  const place = async () => {
    // One iterator for all: each takes the next file.
    for (const file of waiting) {
      if (failure) return
      await sandbox.write(file.path, file.content()).catch((error: unknown) => {
        failure ??= { error }
      })
    }
  }
  await Promise.all(Array.from({ length: Math.min(atOnce, files.length) }, place))
  if (failure) throw failure.error
}
