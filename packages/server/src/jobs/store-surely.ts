import { setTimeout as delay } from 'node:timers/promises'
import { RoomWait, type RoomWaitOptions } from '../state/room-wait.ts'
import { storageFaultOf } from '../state/storage-fault.ts'

const retryDelaysMs = [100, 1000, 5000]

/**
 * A short fault of the database must not leave a job behind that never ends, and a full disk only makes it wait, until there is room or `giveUp`; another long fault is for recovery at the next start. Never rejects.
 */
export async function storeSurely(write: () => Promise<unknown>, onFailed: (error: unknown) => void, room: RoomWaitOptions = {}): Promise<void> {
  const onFull = (words: string, error: unknown) => {
    onFailed(error)
    room.onFull?.(words, error)
  }
  const wait = new RoomWait({ ...room, onFull })
  for (const delayMs of [...retryDelaysMs, undefined]) {
    try {
      await wait.run(write)
      return
    } catch (error) {
      if (storageFaultOf(error) !== undefined) return
      onFailed(error)
      if (delayMs !== undefined) await delay(delayMs)
    }
  }
}
