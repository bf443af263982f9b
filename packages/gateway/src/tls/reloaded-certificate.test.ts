import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { connect, createServer } from 'node:tls'
import { pino } from 'pino'
import { describe, expect, it, onTestFinished } from 'vitest'
import { makeCertificate, writeCertificate } from '../http/testing/make-certificate.ts'
import { watchCertificate } from './reloaded-certificate.ts'

const logger = pino({ level: 'silent' })

describe('a certificate', () => {
  it('is read anew when its files change; one that cannot be used is not taken', async () => {
    const files = await makeCertificate()
    const certificate = await watchCertificate(files, (changed) => server.setSecureContext(changed), { logger, everyMs: 3_600_000 })
    onTestFinished(() => certificate[Symbol.dispose]())
    const server = createServer(certificate.first, (socket) => socket.end())
    onTestFinished(() => void server.close())
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const name = async () => {
      const socket = connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', rejectUnauthorized: false })
      await once(socket, 'secureConnect')
      const { subject } = socket.getPeerCertificate()
      socket.resume().end()
      await once(socket, 'close')
      return subject.CN
    }
    expect(await name()).toBe('first')
    await certificate.check()
    await writeCertificate(files, 'second')
    await certificate.check()
    expect(await name()).toBe('second')
    await writeFile(files.cert, 'nonsense')
    await certificate.check()
    expect(await name()).toBe('second')
  })

  it('that cannot be used at first says why', async () => {
    const files = await makeCertificate()
    await expect(watchCertificate({ ...files, cert: '/nowhere/cert.pem' }, () => {}, { logger })).rejects.toMatchObject({ code: 'bad_request' })
    await writeFile(files.key, 'nonsense')
    await expect(watchCertificate(files, () => {}, { logger })).rejects.toThrow(files.key)
  })
})
