import { MagsError } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { fieldsOf, firstRun, parseSchedule } from './schedule.ts'

const at = (text: string) => Date.parse(`${text}Z`)
/** The next times after one, all as `YYYY-MM-DDTHH:MM` in UTC. */
function times(schedule: string, timezone: string, after: string, count: number): string[] {
  const parsed = parseSchedule(schedule, timezone)
  const found: string[] = []
  for (let time: number | undefined = at(after); found.length < count; ) {
    time = parsed.next(time)
    if (time === undefined) break
    found.push(new Date(time).toISOString().slice(0, 16))
  }
  return found
}
const fault = (schedule: string, timezone = 'UTC') => {
  try {
    firstRun(schedule, timezone, at('2026-01-01T00:00'))
    return undefined
  } catch (error) {
    if (error instanceof MagsError && error.code === 'bad_request') return error.message
    throw error
  }
}

describe('a schedule', () => {
  it('has five fields, or a name for them', () => {
    expect(fieldsOf('  0   3 * *\tmon-fri ')).toBe('0 3 * * mon-fri')
    expect(['@hourly', '@Daily', '@midnight', '@weekly', '@monthly', '@yearly', '@annually'].map(fieldsOf)).toEqual([
      '0 * * * *',
      '0 0 * * *',
      '0 0 * * *',
      '0 0 * * 0',
      '0 0 1 * *',
      '0 0 1 1 *',
      '0 0 1 1 *',
    ])
  })

  it.each([
    ['', 'schedule: must be five fields (minute, hour, day of month, month, day of week), and this is empty'],
    ['* * * *', 'schedule: must be five fields (minute, hour, day of month, month, day of week), and this has 4'],
    ['* * * * * *', 'schedule: must be five fields (minute, hour, day of month, month, day of week), and this has 6; seconds and years cannot be given'],
    ['@reboot', 'schedule: "@reboot" is not known here; there are @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually, and five fields'],
    ['@daily @daily', 'schedule: "@daily @daily" is not known here; there are'],
    ['@constructor', 'schedule: "@constructor" is not known here'],
    ['60 * * * *', 'schedule: Invalid value for minute: 60'],
    ['* 24 * * *', 'schedule: Invalid value for hour: 24'],
    ['* * 0 * *', 'schedule: '],
    ['* * * 13 *', 'schedule: '],
    ['* * * * 8', 'schedule: '],
    ['*/0 * * * *', 'schedule: '],
    ['59-5 * * * *', 'schedule: From value is larger than to value'],
    ['x * * * *', 'schedule: '],
    ['0 0 30 2 *', 'schedule: there is no such date'],
    ['0 0 31 4,6,9,11 *', 'schedule: there is no such date'],
    ['2026-01-01T00:00:00', 'schedule: must be five fields'],
  ])('%j is refused in words', (text, words) => {
    expect(fault(text)).toContain(words)
  })

  it.each(['Europe/Nowhere', '', '+02:00', 'UTC+1', '../etc/passwd', 'a'.repeat(65), 'Europe/Berlin\0'])('of the zone %j is refused by its name', (zone) => {
    expect(fault('0 0 * * *', zone)).toMatch(/^timezone: ".*" does not exist; name one as the IANA does/)
  })

  it('never crashes over what is not one', () => {
    let seed = 7
    const random = (below: number) => {
      seed = (seed * 48_271) % 2_147_483_647
      return Math.floor((seed / 2_147_483_647) * below)
    }
    const pieces = [
      '*',
      '/',
      '-',
      ',',
      '#',
      'L',
      'W',
      '?',
      '+',
      '0',
      '5',
      '59',
      '60',
      '999999999',
      '1e9',
      '-1',
      '.',
      ' ',
      '\t',
      '\n',
      'MON',
      'feb',
      '@',
      '\u0000',
      'é',
      '😀',
      '__proto__',
    ]
    const fields = ['*', '*', '*/5', '1', '2-5', '7,8', '0', 'L', '15W', '1#2', 'MON', 'feb', '?', '+1', '00', '1-', '31', '#L', '9-1', '1,', '*/99']
    const accepted = new Set<string>()
    for (let round = 0; round < 6000; round++) {
      const text = Array.from({ length: random(14) }, () => pieces[random(pieces.length)]).join('')
      const five = Array.from({ length: 5 }, () => `${fields[random(fields.length)]}${random(20) === 0 ? pieces[random(18)] : ''}`).join(' ')
      for (const one of [text, five]) if (fault(one) === undefined) accepted.add(one)
    }
    expect(accepted.size).toBeGreaterThan(50)
  })
})

describe('times', () => {
  it('come at month ends and in leap years', () => {
    expect(times('0 12 31 * *', 'UTC', '2026-01-01T00:00', 4)).toEqual(['2026-01-31T12:00', '2026-03-31T12:00', '2026-05-31T12:00', '2026-07-31T12:00'])
    expect(times('0 0 L * *', 'UTC', '2027-12-31T00:00', 3)).toEqual(['2028-01-31T00:00', '2028-02-29T00:00', '2028-03-31T00:00'])
    expect(times('0 0 29 2 *', 'UTC', '2092-03-01T00:00', 2)).toEqual(['2096-02-29T00:00', '2104-02-29T00:00'])
    expect(times('59 23 31 12 *', 'Asia/Tokyo', '2026-12-31T14:58', 2)).toEqual(['2026-12-31T14:59', '2027-12-31T14:59'])
    // Day of month or day of week, when both are given.
    expect(times('0 0 13 * 5', 'UTC', '2026-02-01T00:00', 4)).toEqual(['2026-02-06T00:00', '2026-02-13T00:00', '2026-02-20T00:00', '2026-02-27T00:00'])
  })

  it('are after, never at, the moment asked about', () => {
    expect(times('0 3 * * *', 'UTC', '2026-01-01T03:00', 1)).toEqual(['2026-01-02T03:00'])
    expect(times('0 3 * * *', 'UTC', '2026-01-01T02:59:59.999', 1)).toEqual(['2026-01-01T03:00'])
  })

  it('go to the end of the hour that daylight saving skips', () => {
    // Berlin: from 02:00 (01:00 UTC) to 03:00 on 29 March.
    expect(times('30 2 * * *', 'Europe/Berlin', '2026-03-28T00:00', 3)).toEqual(['2026-03-28T01:30', '2026-03-29T01:00', '2026-03-30T00:30'])
    expect(times('*/30 * * * *', 'Europe/Berlin', '2026-03-29T00:15', 3)).toEqual(['2026-03-29T00:30', '2026-03-29T01:00', '2026-03-29T01:30'])
    // São Paulo: midnight (03:00 UTC) did not exist on 4 November 2018.
    expect(times('0 0 * * *', 'America/Sao_Paulo', '2018-11-03T12:00', 2)).toEqual(['2018-11-04T03:00', '2018-11-05T02:00'])
    expect(times('0 12 * * *', 'America/Sao_Paulo', '2026-11-03T12:00', 2)).toEqual(['2026-11-03T15:00', '2026-11-04T15:00'])
    // Lord Howe: half an hour, from 02:00 to 02:30 on 4 October (15:30 UTC the day before).
    expect(times('15 2 * * *', 'Australia/Lord_Howe', '2026-10-03T00:00', 2)).toEqual(['2026-10-03T15:30', '2026-10-04T15:15'])
  })

  it('come once in the hour that comes twice, when they are fixed', () => {
    // Berlin: 02:30 is 00:30 and 01:30 UTC on 25 October.
    expect(times('30 2 * * *', 'Europe/Berlin', '2026-10-24T12:00', 2)).toEqual(['2026-10-25T00:30', '2026-10-26T01:30'])
    expect(times('30 2,4 * * *', 'Europe/Berlin', '2026-10-24T12:00', 2)).toEqual(['2026-10-25T00:30', '2026-10-25T03:30'])
    expect(times('0 */1 * * *', 'Europe/Berlin', '2026-10-24T23:30', 4)).toEqual([
      '2026-10-25T00:00',
      '2026-10-25T01:00',
      '2026-10-25T02:00',
      '2026-10-25T03:00',
    ])
    expect(times('45 1 * * *', 'Australia/Lord_Howe', '2026-04-04T00:00', 2)).toEqual(['2026-04-04T14:45', '2026-04-05T15:15'])
  })

  it.each([
    ['30 2 * * *', 'Europe/Berlin', '2026-03-27T00:00'],
    ['30 2 * * *', 'Europe/Berlin', '2026-10-23T00:00'],
    ['*/20 1-3 * * *', 'Europe/Berlin', '2026-10-24T20:00'],
    ['*/20 1-3 * * *', 'Europe/Berlin', '2026-03-28T20:00'],
    ['15 2 * * *', 'Australia/Lord_Howe', '2026-10-02T00:00'],
    ['*/10 * * * *', 'Australia/Lord_Howe', '2026-04-04T12:00'],
    ['0 0 * * *', 'America/Sao_Paulo', '2018-11-02T00:00'],
  ])('%j in %s are the same looking back', (text, zone, from) => {
    const schedule = parseSchedule(text, zone)
    let newest: number | undefined
    let next = schedule.next(at(from))
    for (let time = at(from); time < at(from) + 3 * 86_400_000; time += 60_000 * 5) {
      while (next !== undefined && next <= time) {
        newest = next
        next = schedule.next(next)
      }
      if (newest === undefined) continue
      expect(schedule.latest(time)).toBe(newest)
      expect(schedule.latest(time + 59_999)).toBe(newest)
      expect(schedule.next(time)).toBe(next)
    }
    expect(newest).toBeDefined()
  })
})
