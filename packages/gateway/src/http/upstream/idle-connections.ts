import type { UpstreamConnection } from './upstream-connection.ts'

const maxIdle = 128
const idleMs = 4000
/** A request that must not be repeated gets a connection that was in use just now: servers close those that were idle for longer. */
const freshMs = 1000

/** Connections of one job that wait for their next request, by port. The one used last is taken first. */
export class IdleConnections {
  readonly #byPort = new Map<number, UpstreamConnection[]>()
  #closed = false

  take(port: number, repeatable: boolean): UpstreamConnection | undefined {
    const idle = this.#byPort.get(port)
    while (idle !== undefined) {
      const last = idle.at(-1)
      if (last === undefined) return undefined
      if (!repeatable && Date.now() - last.idleSince > freshMs) return undefined
      idle.pop()
      if (last.isUsable) return last
    }
    return undefined
  }

  give(port: number, connection: UpstreamConnection): void {
    let idle = this.#byPort.get(port)
    if (idle === undefined) {
      idle = []
      this.#byPort.set(port, idle)
    }
    if (this.#closed || !connection.isUsable || idle.length >= maxIdle) {
      connection.destroy()
      return
    }
    idle.push(connection)
    const here = idle
    connection.rest(() => {
      const at = here.indexOf(connection)
      if (at >= 0) here.splice(at, 1)
    })
  }

  /** Closes those that were idle for long: servers would do so soon, and perhaps just when the next request is on its way. */
  sweep(now: number): void {
    for (const idle of this.#byPort.values()) for (const connection of [...idle]) if (now - connection.idleSince > idleMs) connection.destroy()
  }

  close(): void {
    this.#closed = true
    for (const idle of this.#byPort.values()) for (const connection of [...idle]) connection.destroy()
    this.#byPort.clear()
  }
}
