import { describe, expect, it } from 'vitest'
import { encodeDialRequest } from './encode-dial-request.ts'

const request = { process: { pid: 4242, startTicks: 0x1122334455 }, addresses: ['127.0.0.1', '10.213.0.2', '::1'], port: 8080, timeoutMs: 10_000 }

describe('encodeDialRequest', () => {
  it('lays it out as native/mounter/dial-request.h says', () => {
    const head = '07000000' + '92100000' + '5544332211000000' + '10270000' + '901f' + '03' + '00'
    const addresses = '00000000000000000000ffff7f000001' + '00000000000000000000ffff0ad50002' + '00000000000000000000000000000001'
    expect(encodeDialRequest(7, request).toString('hex')).toBe(head + addresses)
  })

  it('leaves places of addresses that are not given empty', () => {
    const bytes = encodeDialRequest(7, { ...request, addresses: ['127.0.0.1'] })
    expect([bytes.length, bytes[22], bytes.subarray(40).every((byte) => byte === 0)]).toEqual([72, 1, true])
  })

  it('refuses what cannot be dialled', () => {
    const wrong = [{ port: 0 }, { port: 65_536 }, { port: 1.5 }, { addresses: [] }, { addresses: ['1.2.3.4', '1.2.3.4', '1.2.3.4', '1.2.3.4'] }]
    const wrongAddresses = ['localhost', '1.2.3', '1.2.3.256', '1.2.3.x', 'fe80::1', '::ffff:1.2.3.4', ''].map((address) => ({ addresses: [address] }))
    for (const change of [...wrong, ...wrongAddresses])
      expect(() => encodeDialRequest(7, { ...request, ...change }), JSON.stringify(change)).toThrow(RangeError)
  })
})
