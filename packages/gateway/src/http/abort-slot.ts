/** Who waits for a job on behalf of a request hears here that the request is over. */
export class AbortSlot {
  #listener: (() => void) | undefined
  #done = false

  get isDone(): boolean {
    return this.#done
  }

  set(listener: (() => void) | undefined): void {
    this.#listener = listener
    if (this.#done) listener?.()
  }

  run(): void {
    this.#done = true
    this.#listener?.()
    this.#listener = undefined
  }
}
