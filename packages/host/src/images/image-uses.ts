/** Which versions of images sandboxes of this daemon have, or are about to get. */
export class ImageUses {
  readonly #counts = new Map<string, number>()

  /** Until what it returns is called, which may be more than once. */
  hold({ name, digest }: { readonly name: string; readonly digest: string }): () => void {
    const key = `${name} ${digest}`
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1)
    let held = true
    return () => {
      if (!held) return
      held = false
      const left = (this.#counts.get(key) ?? 1) - 1
      if (left === 0) this.#counts.delete(key)
      else this.#counts.set(key, left)
    }
  }

  count({ name, digest }: { readonly name: string; readonly digest: string }): number {
    return this.#counts.get(`${name} ${digest}`) ?? 0
  }
}
