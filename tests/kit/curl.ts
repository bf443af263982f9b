import { execFile } from 'node:child_process'

export interface CurlAnswer {
  /** Curl's exit code: 18 when less came than was announced. */
  readonly exitCode: number
  readonly status: number
  /** `1.1` or `2`. */
  readonly httpVersion: string
  /** Connections made for the last of the addresses. */
  readonly connects: number
  readonly head: string
  readonly body: string
}

const mark = '\n--curl--'

/** One run of curl. A body that is no text goes to a file with `-o`. */
export function curl(...args: readonly string[]): Promise<CurlAnswer> {
  const write = `${mark}%{http_code} %{http_version} %{num_connects}`
  return new Promise((resolve) => {
    execFile('curl', ['-sS', '--include', '--max-time', '60', '-w', write, ...args], { maxBuffer: 1 << 26 }, (error, stdout) => {
      const end = stdout.lastIndexOf(mark)
      const [status, httpVersion = '', connects] = stdout.slice(end + mark.length).split(' ')
      const answer = withoutInformational(stdout.slice(0, end))
      const gap = answer.indexOf('\r\n\r\n')
      resolve({
        exitCode: typeof error?.code === 'number' ? error.code : 0,
        status: Number(status),
        httpVersion,
        connects: Number(connects),
        head: gap < 0 ? '' : answer.slice(0, gap),
        body: gap < 0 ? answer : answer.slice(gap + 4),
      })
    })
  })
}

function withoutInformational(text: string): string {
  return text.replace(/^(HTTP\/[\d.]+ 1\d\d[^\r]*\r\n([^\r]+\r\n)*\r\n)+/, '')
}
