import type { Requester } from '../http/requester.ts'
import type { CallOptions, PageOptions } from '../jobs/status.ts'
import type { DoneWire } from '../wire/answers.ts'
import type { JobRunWire, TemplateListWire, TemplateRevisionListWire, TemplateWire } from '../wire/jobs-api-answers.ts'
import { type Answer, toWire } from '../wire/names.ts'
import type { RunJobOptions } from './jobs-client.ts'

interface TemplateFields {
  name: string
  script: string
  description?: string | undefined
  environment?: Readonly<Record<string, string>> | undefined
  /** Default 2. */
  vcpus?: number | undefined
  /** Default 512. */
  memoryMb?: number | undefined
  /** About this revision. */
  comment?: string | undefined
}

export interface CreateTemplateOptions extends TemplateFields, CallOptions {
  idempotencyKey?: string | undefined
}

/** What changes; null: the default again. Each change is a new revision. */
export type UpdateTemplateOptions = {
  [Name in 'name' | 'script']?: TemplateFields[Name] | undefined
} & {
  [Name in Exclude<keyof TemplateFields, 'name' | 'script'>]?: TemplateFields[Name] | null | undefined
} & CallOptions

/** Templates of jobs, with numbered revisions. */
export class TemplatesClient {
  readonly #requester: Requester

  constructor(requester: Requester) {
    this.#requester = requester
  }

  async create(options: CreateTemplateOptions): Promise<Answer<TemplateWire>> {
    const { signal, idempotencyKey = crypto.randomUUID(), ...fields } = options
    const headers = { 'idempotency-key': idempotencyKey }
    const body = { script_type: 'inline', ...toWire(fields) }
    return await this.#requester.json<TemplateWire>({ method: 'POST', path: '/job-templates', body, headers, repeatable: true, signal })
  }

  /** Newest first. */
  async list(options: PageOptions = {}): Promise<Answer<TemplateListWire>> {
    const { signal, ...paging } = options
    return await this.#requester.json<TemplateListWire>({ method: 'GET', path: '/job-templates', query: toWire(paging) as Record<string, number>, signal })
  }

  async get(id: string, options: CallOptions = {}): Promise<Answer<TemplateWire>> {
    return await this.#requester.json<TemplateWire>({ method: 'GET', path: templatePath(id), signal: options.signal })
  }

  async update(id: string, options: UpdateTemplateOptions): Promise<Answer<TemplateWire>> {
    const { signal, ...fields } = options
    return await this.#requester.json<TemplateWire>({ method: 'PUT', path: templatePath(id), body: toWire(fields), signal })
  }

  /** Jobs that were made from it stay. */
  async delete(id: string, options: CallOptions = {}): Promise<Answer<DoneWire>> {
    return await this.#requester.json<DoneWire>({ method: 'DELETE', path: templatePath(id), signal: options.signal })
  }

  /** A new job of its newest revision, and that job's first run. */
  async run(id: string, options: RunJobOptions = {}): Promise<Answer<JobRunWire>> {
    const { signal, ...fields } = options
    const headers = { 'idempotency-key': crypto.randomUUID() }
    return await this.#requester.json<JobRunWire>({ method: 'POST', path: templatePath(id, '/run'), body: toWire(fields), headers, repeatable: true, signal })
  }

  /** Newest first. */
  async revisions(id: string, options: PageOptions = {}): Promise<Answer<TemplateRevisionListWire>> {
    const { signal, ...paging } = options
    const query = toWire(paging) as Record<string, number>
    return await this.#requester.json<TemplateRevisionListWire>({ method: 'GET', path: templatePath(id, '/revisions'), query, signal })
  }
}

function templatePath(id: string, rest = ''): string {
  if (id === '') throw new TypeError('The id of a template must not be empty.')
  return `/job-templates/${encodeURIComponent(id)}${rest}`
}
