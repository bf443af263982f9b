import { MagsError } from '@mags/protocol'
import { Cron as Croner } from 'croner'

/** When something runs. Times are milliseconds since 1970, whole minutes but for zones that were once shifted by seconds. */
export interface Schedule {
  /** The first time after this one; undefined: never again. */
  next(afterMs: number): number | undefined
  /** The newest time that is not after this one. */
  latest(atMs: number): number | undefined
}

const nicknames: Readonly<Record<string, string>> = {
  '@hourly': '0 * * * *',
  '@daily': '0 0 * * *',
  '@midnight': '0 0 * * *',
  '@weekly': '0 0 * * 0',
  '@monthly': '0 0 1 * *',
  '@yearly': '0 0 1 1 *',
  '@annually': '0 0 1 1 *',
}
const fiveFields = 'must be five fields (minute, hour, day of month, month, day of week)'

/** The five fields that a schedule stands for, with one space between them. Throws MagsError('bad_request'). */
export function fieldsOf(text: string): string {
  const fields = text.trim().split(/\s+/)
  const [first = ''] = fields
  if (first.startsWith('@')) {
    const known = fields.length === 1 && Object.hasOwn(nicknames, first.toLowerCase()) ? nicknames[first.toLowerCase()] : undefined
    if (known !== undefined) return known
    throw refused(`${JSON.stringify(text.slice(0, 64))} is not known here; there are ${Object.keys(nicknames).join(', ')}, and five fields`)
  }
  if (fields.length !== 5 || first === '') {
    const count = first === '' ? 'is empty' : `has ${fields.length}`
    throw refused(`${fiveFields}, and this ${count}${fields.length > 5 ? '; seconds and years cannot be given' : ''}`)
  }
  return fields.join(' ')
}

/**
 * Five fields as crontab(5) has them, and croner's L, W, # and + besides, read in a time zone. Where the zone skips an hour, a run at a fixed time in it happens at its end and one of every so many minutes does not happen;
 * where an hour comes twice, the fixed one happens once and the other in both: as cron(8) does it. Throws MagsError('bad_request') that names the field.
 */
export function parseSchedule(text: string, timezone: string): Schedule {
  const fields = fieldsOf(text)
  checkTimezone(timezone)
  let cron: Croner
  try {
    cron = new Croner(fields, { paused: true, mode: '5-part', timezone, fixedTimeRule: 'no-wildcard' })
  } catch (error) {
    throw refused(wordsOf(error), error)
  }
  return {
    next: (afterMs) => cron.nextRun(new Date(afterMs))?.getTime(),
    latest: (atMs) => cron.previousRuns(1, new Date(Math.floor(atMs / 1000) * 1000 + 1000))[0]?.getTime(),
  }
}

/** When it runs first after `nowMs`. Throws MagsError('bad_request') as `parseSchedule`, and when that is never. */
export function firstRun(text: string, timezone: string, nowMs: number): number {
  const next = parseSchedule(text, timezone).next(nowMs)
  if (next === undefined) throw refused('there is no such date')
  return next
}

function checkTimezone(timezone: string): void {
  // Offsets are no zones: they do not know of daylight saving.
  if (/^[A-Za-z][A-Za-z0-9_+/-]{0,63}$/.test(timezone)) {
    try {
      new Intl.DateTimeFormat('en', { timeZone: timezone })
      return
    } catch {
      // Told below.
    }
  }
  throw new MagsError(
    'bad_request',
    `timezone: ${JSON.stringify(timezone.slice(0, 64))} does not exist; name one as the IANA does, such as Europe/Berlin or UTC`,
  )
}

function wordsOf(error: unknown): string {
  const words = error instanceof Error ? error.message : String(error)
  return words.replace(/^Cron\w*: /, '').slice(0, 300)
}

const refused = (words: string, cause?: unknown) => new MagsError('bad_request', `schedule: ${words}`, { cause })
