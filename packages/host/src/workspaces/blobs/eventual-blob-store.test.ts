import { MagsError } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { EventualBlobStore } from './eventual-blob-store.ts'
import { MemoryBlobStore } from './testing/memory-blob-store.ts'

const unavailable = () => new MagsError('object_store_unavailable', 'it does not answer')

describe('a store that may not answer yet', () => {
  it('is opened by the first call that finds it awake, and only once', async () => {
    let attempts = 0
    const heard: unknown[] = []
    const open = async () => {
      if (++attempts < 3) throw unavailable()
      return new MemoryBlobStore()
    }
    const store = await EventualBlobStore.open(open, 'memory', (error) => heard.push(error))
    expect(heard).toHaveLength(1)
    expect(store.description).toBe('memory')
    await expect(store.get('a')).rejects.toMatchObject({ code: 'object_store_unavailable' })
    await Promise.all([store.put('a', Buffer.from('x')), store.put('b', Buffer.from('y'))])
    expect((await store.get('a'))?.bytes.toString()).toBe('x')
    expect(attempts).toBe(3)
  })

  it('does not start with one that refuses us', async () => {
    const refuse = () => Promise.reject(new MagsError('object_store_refused', 'wrong secret'))
    await expect(EventualBlobStore.open(refuse, 'memory', () => undefined)).rejects.toMatchObject({ code: 'object_store_refused' })
  })
})
