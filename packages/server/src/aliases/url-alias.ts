/** A stable name for whatever job has a workspace. It outlives the jobs, and the workspace, too: without one it leads nowhere until there is one of that name again. */
export interface UrlAlias {
  /** Unique on this server, whatever the account. */
  readonly subdomain: string
  readonly accountId: string
  readonly workspaceId: string
  /** A host name of the user's own; unique, too. */
  readonly domain: string | null
  readonly createdAt: string
  readonly updatedAt: string
}
