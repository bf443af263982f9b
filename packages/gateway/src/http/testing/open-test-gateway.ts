import { once } from 'node:events'
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { pino } from 'pino'
import { onTestFinished } from 'vitest'
import { type HttpGateway, type HttpGatewayOptions, openHttpGateway } from '../open-http-gateway.ts'
import type { FakeDirectory } from './fake-directory.ts'
import { RawClient } from './raw-client.ts'
import { openRawServer, type RawServer } from './raw-server.ts'

/** A gateway in front of `directory`, closed with the test. */
export async function openTestGateway(directory: FakeDirectory, options: Partial<HttpGatewayOptions> = {}): Promise<HttpGateway> {
  const gateway = await openHttpGateway({
    directory,
    logger: pino({ level: 'silent' }),
    host: '127.0.0.1',
    port: 0,
    appsDomain: 'apps.localhost',
    cookieKey: Buffer.alloc(32, 7),
    ...options,
    limits: { drainMs: 0, lingerMs: 20, ...options.limits },
  })
  onTestFinished(() => gateway.close())
  return gateway
}

export async function openTestClient(gateway: HttpGateway): Promise<RawClient> {
  const client = await RawClient.open(gateway.port)
  onTestFinished(() => client[Symbol.dispose]())
  return client
}

export async function openRawUpstream(onData: Parameters<typeof openRawServer>[0]): Promise<RawServer> {
  const server = await openRawServer(onData)
  onTestFinished(() => server[Symbol.asyncDispose]())
  return server
}

/** A well-behaved server in the sandbox. */
export async function openUpstream(listener: RequestListener): Promise<{ readonly server: Server; readonly port: number }> {
  const server = createServer({ keepAliveTimeout: 60_000 }, listener)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(async () => {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  })
  return { server, port: (server.address() as AddressInfo).port }
}
