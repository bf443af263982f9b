import { MagsError, type RunningSandbox } from '@mags/protocol'
import type { JobLog } from '../logs/job-log.ts'
import { RoomWait } from '../state/room-wait.ts'

const goesOn = 'it goes on by itself once there is room'

/**
 * Why a job stands still although nobody wished so: a disk that is full holds up its log, its row or its machine. Nothing of it is lost; it goes on when there is room.
 *
 *     none ──log, row or machine is held up──▶ stands still ──there is room──▶ none
 */
export class JobTrouble {
  readonly #log: JobLog
  readonly #onEndWaits: () => void
  readonly #givingUp = new AbortController()
  readonly #unstored = Promise.withResolvers<never>()
  #row: RoomWait | undefined
  #end: string | undefined
  #machine: string | undefined

  /** `onEndWaits`: its end has to wait for room; its sandbox may have what there is no room for. */
  constructor(log: JobLog, onEndWaits: () => void) {
    this.#log = log
    this.#onEndWaits = onEndWaits
    this.#unstored.promise.catch(() => undefined)
  }

  /** In words, with what to do. */
  get words(): string | undefined {
    if (this.#end !== undefined) return `${this.#end}; the job has ended, which is stored once there is room`
    const words = this.#machine ?? this.#row?.words ?? this.#log.stuck
    return words && `${words}; the job stands still, and ${goesOn}`
  }

  /** Rejects with MagsError 'storage_full' when the job's end has to wait for room; never settles otherwise. */
  get unstored(): Promise<never> {
    return this.#unstored.promise
  }

  /** Aborted when nobody waits for room any more. */
  get giveUp(): AbortSignal {
    return this.#givingUp.signal
  }

  /** The server ends: what waits for room is left to the next one. */
  leave(): void {
    this.#givingUp.abort()
  }

  /** For `EndingJob`. */
  get room(): { readonly giveUp: AbortSignal; readonly onFull: (words: string) => void } {
    const onFull = (words: string) => {
      this.#end ??= words
      this.#unstored.reject(new MagsError('storage_full', this.words ?? words))
      this.#onEndWaits()
    }
    return { giveUp: this.giveUp, onFull }
  }

  /** Writes something about a job that has not begun, as soon as there is room. Rejects as `write`, and with why it is full after `abort` or `leave`. */
  async store<T>(write: () => Promise<T>, abort?: AbortSignal): Promise<T> {
    const row = new RoomWait({ giveUp: this.giveUp })
    this.#row = row
    try {
      return await row.run(write, abort)
    } finally {
      this.#row = undefined
    }
  }

  /** Its machine may be held up, too. */
  watch(running: RunningSandbox): void {
    this.#machine = undefined
    running.watchStalls((words) => {
      const before = this.#machine
      this.#machine = words
      if (words !== undefined && before === undefined) void this.#log.system(`the machine stands still: ${words}; ${goesOn}`, 'error')
      if (words === undefined && before !== undefined) void this.#log.system('there is room again; the machine goes on', 'info')
    })
    void running.gone.then(() => {
      this.#machine = undefined
    })
  }
}
