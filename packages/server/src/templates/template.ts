/** What runs are made of, with numbered revisions of its script. */
export interface Template {
  readonly id: string
  readonly accountId: string
  /** Id of the token it was made with. */
  readonly userId: string
  readonly name: string
  readonly description: string | null
  readonly vcpus: number
  readonly memoryMb: number
  readonly latest: TemplateRevision
  readonly createdAt: string
  readonly updatedAt: string
}

/** Never changed, and kept when its template is deleted. */
export interface TemplateRevision {
  readonly id: string
  readonly templateId: string
  /** From 1 up, without gaps. */
  readonly revision: number
  readonly script: string
  readonly environment: Readonly<Record<string, string>>
  readonly comment: string | null
  readonly createdAt: string
  /** Id of the token it was made with. */
  readonly createdBy: string
}
