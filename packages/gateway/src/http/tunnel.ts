import type { Duplex } from 'node:stream'

export interface TunnelEnd {
  readonly socket: Duplex
  /** What was already read from it. */
  readonly first: Buffer
}

export interface TunnelOptions {
  /** Once one side has ended the other may be silent for this long. */
  readonly halfOpenMs: number
  /** Hears of each piece before it is passed on; bytes of the client wait for what it returns, and the tunnel ends when that rejects. */
  readonly onTraffic: () => Promise<unknown> | undefined
  /** Called once. */
  readonly onClosed: () => void
}

/** Carries bytes both ways until both ended or one failed. */
export function tunnel(client: TunnelEnd, upstream: TunnelEnd, { halfOpenMs, onTraffic, onClosed }: TunnelOptions): void {
  let open = 2
  let closed = false
  let idle: NodeJS.Timeout | undefined

  const close = () => {
    if (closed) return
    closed = true
    clearTimeout(idle)
    client.socket.destroy()
    upstream.socket.destroy()
    onClosed()
  }
  const watch = () => {
    clearTimeout(idle)
    if (open === 1 && !closed) idle = setTimeout(close, halfOpenMs)
  }
  const carry = (from: TunnelEnd, to: TunnelEnd) => {
    let waiting = false
    let ended = false
    const end = () => {
      if (ended && !waiting) to.socket.end()
    }
    const pass = (bytes: Buffer) => {
      if (!to.socket.write(bytes)) from.socket.pause()
    }
    const passLater = (bytes: Buffer, awake: Promise<unknown>) => {
      waiting = true
      from.socket.pause()
      awake.then(() => {
        waiting = false
        if (closed) return
        from.socket.resume()
        pass(bytes)
        end()
      }, close)
    }
    from.socket.on('data', (bytes: Buffer) => {
      if (open === 1) watch()
      const awake = onTraffic()
      if (awake === undefined) pass(bytes)
      else if (from === client) passLater(bytes, awake)
      else {
        // It speaks, so it is awake.
        awake.catch(close)
        pass(bytes)
      }
    })
    to.socket.on('drain', () => {
      if (!waiting) from.socket.resume()
    })
    from.socket.on('end', () => {
      open--
      ended = true
      end()
      if (open > 0) watch()
    })
    from.socket.on('error', close)
    from.socket.on('close', () => {
      // What it sent before its end still goes to the other side.
      if (from.socket.readableEnded) to.socket.end(close)
      else close()
    })
    if (from.first.length > 0) to.socket.write(from.first)
  }
  carry(client, upstream)
  carry(upstream, client)
  if (client.socket.destroyed || upstream.socket.destroyed) {
    close()
    return
  }
  client.socket.resume()
  upstream.socket.resume()
}
