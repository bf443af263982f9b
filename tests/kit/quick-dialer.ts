import type { Dialer, DialerClient } from '../../packages/host/src/dialer/dialer-client.ts'

/** A dialer that gives up early on one port, for servers that accept nothing: all others have the time they always have. */
export function quickDialer(dialer: DialerClient, { port, timeoutMs }: { readonly port: number; readonly timeoutMs: number }): Dialer {
  return {
    dial: (request) => dialer.dial(request.port === port ? { ...request, timeoutMs } : request),
    get ended() {
      return dialer.ended
    },
  }
}
