import { CliError } from '../exit/cli-error.ts'

/** An archive that is broken, or asks for something that is not done. Nothing outside of the target folder was touched. */
export class TarError extends CliError {
  constructor(message: string) {
    super(message, { code: 'bad_archive' })
    this.name = 'TarError'
  }
}
