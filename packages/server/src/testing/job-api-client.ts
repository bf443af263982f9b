import type { JobAnswer, JobRunAnswer, ListJobRunsAnswer, RunStatusAnswer } from '@mags/protocol'
import type { TestServer } from './test-server.ts'

/** One event of a log that is followed. */
export interface FollowedEvent {
  readonly id?: string
  readonly event: string
  readonly data: Record<string, unknown>
}

/** The Jobs API of a server as a client sees it. */
export class JobApiClient {
  readonly #mags: TestServer

  constructor(mags: TestServer) {
    this.#mags = mags
  }

  /** Returns its id. One is called `job` unless it is said. */
  async create(body: Record<string, unknown> = {}): Promise<string> {
    const answer = await this.#mags.call('POST', '/jobs', { name: 'job', script: 'echo hi', ...body })
    if (answer.status !== 202) throw new Error(`${answer.status} ${JSON.stringify(answer.body)}`)
    return String(answer.body.request_id)
  }

  async run(id: string, body?: Record<string, unknown>): Promise<JobRunAnswer> {
    const answer = await this.#mags.call('POST', `/jobs/${id}/run`, body)
    if (answer.status !== 202) throw new Error(`${answer.status} ${JSON.stringify(answer.body)}`)
    return answer.body as unknown as JobRunAnswer
  }

  async get(id: string): Promise<JobAnswer> {
    return (await this.#mags.call('GET', `/jobs/${id}`)).body as unknown as JobAnswer
  }

  /** Newest first. */
  async runs(id: string): Promise<readonly JobRunAnswer[]> {
    return ((await this.#mags.call('GET', `/jobs/${id}/runs?page_size=100`)).body as unknown as ListJobRunsAnswer).runs
  }

  async status(id: string): Promise<RunStatusAnswer> {
    return (await this.#mags.call('GET', `/jobs/${id}/status`)).body as unknown as RunStatusAnswer
  }

  /** Follows a run to its end, then its status. */
  async ended(id: string): Promise<RunStatusAnswer> {
    await this.follow(id)
    return await this.status(id)
  }

  /** Follows a run to its end. */
  async follow(id: string, query = '', headers: Record<string, string> = {}): Promise<FollowedEvent[]> {
    const { body, status } = await this.#mags.call('GET', `/jobs/${id}/logs?follow=true${query}`, undefined, headers)
    if (status !== 200) throw new Error(`${status} ${JSON.stringify(body)}`)
    return String(body.text).trim().split('\n\n').map(parseEvent)
  }
}

function parseEvent(text: string): FollowedEvent {
  const fields = Object.fromEntries(text.split('\n').map((line) => [line.slice(0, line.indexOf(': ')), line.slice(line.indexOf(': ') + 2)]))
  return {
    ...(fields.id === undefined ? {} : { id: fields.id }),
    event: fields.event ?? '',
    data: JSON.parse(fields.data ?? 'null') as Record<string, unknown>,
  }
}
