/** How coarse the times of a file system may be, with room to spare. */
const racyNs = 50_000_000n

/** Whether a file changed so shortly before it was looked at that a later change may have left the same time; its stamp proves nothing then. */
export function isRacy({ ctimeNs }: { readonly ctimeNs: bigint }, startedNs: bigint): boolean {
  return ctimeNs >= startedNs - racyNs
}
