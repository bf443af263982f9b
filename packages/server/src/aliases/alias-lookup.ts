/** What an alias stands for. */
export interface AliasTarget {
  readonly accountId: string
  readonly workspaceId: string
}

/** Who a host name means, as far as aliases know. */
export interface AliasLookup {
  /** `label`: what stands before the apps domain; undefined when `host` is not below it, so that only a domain of an alias can be meant. `host` is lower case without port and final dot. */
  find(label: string | undefined, host: string): Promise<AliasTarget | undefined>
}
