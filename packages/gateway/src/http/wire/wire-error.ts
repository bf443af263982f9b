/** What a peer sent cannot be taken for one thing only, so nothing of it is passed on. `status` is what a client is told; a sandbox's fault is always 502. */
export class WireError extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.name = 'WireError'
    this.status = status
  }
}
