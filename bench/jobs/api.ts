import { setTimeout as delay } from 'node:timers/promises'
import type { BenchClient } from '../kit/client.ts'

/** What of a status the benchmarks look at. */
export interface RunStatus {
  readonly status: string
  readonly warm: boolean | null
  readonly isolation: string | null
  readonly queue_duration_ms: number
  readonly acquire_duration_ms: number
  readonly attach_duration_ms: number
  readonly first_byte_duration_ms: number
  readonly start_duration_ms: number
}

let named = 0

/** Makes a job of the Jobs API and has it run; its id. */
export async function createJob(client: BenchClient, job: Record<string, unknown>): Promise<string> {
  const { request_id: id } = await client.call<{ request_id: string }>('POST', '/api/v1/jobs', { name: `bench-${named++}`, ...job })
  return id
}

/** Reads the log of a run to its end; rejects when it did not end well. */
export async function followRun(client: BenchClient, id: string, onText?: (text: string) => void): Promise<void> {
  const end = await client.follow(`/api/v1/jobs/${id}/logs?follow=true`, onText)
  if (!end.includes('"exit_code":0')) throw new Error(`run ${id}: ${end}`)
}

export interface Begun {
  readonly id: string
  /** From before the request was sent until its answer was read. */
  readonly acceptMs: number
  /** From the answer until the first byte of standard output was read. */
  readonly firstByteMs: number
}

/** A job, or another run of one, up to its end. `path` is that of a job for another run of it. */
export async function firstByteOf(client: BenchClient, job: Record<string, unknown> | { readonly again: string }): Promise<Begun> {
  const begin = performance.now()
  const again = 'again' in job ? String(job.again) : undefined
  const id =
    again === undefined
      ? await createJob(client, job as Record<string, unknown>)
      : (await client.call<{ request_id: string }>('POST', `/api/v1/jobs/${again}/run`, {})).request_id
  const acceptedAt = performance.now()
  let firstByteMs = Number.NaN
  await followRun(client, id, (text) => {
    if (Number.isNaN(firstByteMs) && text.includes('"source":"stdout"')) firstByteMs = performance.now() - acceptedAt
  })
  if (Number.isNaN(firstByteMs)) throw new Error(`run ${id} printed nothing`)
  return { id, acceptMs: acceptedAt - begin, firstByteMs }
}

/** Messages of standard output as they are read, out of pieces of a stream of events. */
export class MessageReader {
  #rest = ''
  readonly #onMessage: (message: string) => void

  constructor(onMessage: (message: string) => void) {
    this.#onMessage = onMessage
  }

  read(text: string) {
    const events = (this.#rest + text).split('\n\n')
    this.#rest = events.pop() ?? ''
    for (const event of events) {
      const data = event.includes('"source":"stdout"') ? /^data: (.*)$/m.exec(event)?.[1] : undefined
      if (data !== undefined) this.#onMessage((JSON.parse(data) as { message: string }).message)
    }
  }
}

/** Runs `work` for each index, so many at once. */
export async function atOnce(count: number, width: number, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0
  await Promise.all(
    Array.from({ length: width }, async () => {
      while (next < count) await work(next++)
    }),
  )
}

export async function until<T>(look: () => Promise<T | undefined>, everyMs: number, longestMs: number): Promise<T> {
  for (const deadline = performance.now() + longestMs; ; ) {
    const found = await look()
    if (found !== undefined) return found
    if (performance.now() > deadline) throw new Error(`not within ${longestMs / 1000} s`)
    await delay(everyMs)
  }
}
