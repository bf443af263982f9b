import { describeFault, type ErrorCode, isTooLarge, MagsError } from '@mags/protocol'
import type { FastifyInstance } from 'fastify'
import type { ZodError, ZodType } from 'zod'

/** Has the routes of this plugin answer 422 where a value breaks its rule, and 400 where a member is missing, unknown or has another JSON type. */
export function validateRange(app: FastifyInstance): void {
  app.setValidatorCompiler<ZodType>(({ schema }) => (data) => {
    const result = schema.safeParse(data)
    return result.success ? { value: result.data } : { error: rangeError(result.error) }
  })
}

/** The first fault of a request as an error. */
export const rangeError = (error: ZodError): MagsError => new MagsError(codeOf(error), describeFault(error))

function codeOf(error: ZodError): ErrorCode {
  const issue = error.issues[0]
  if (isTooLarge(issue)) return 'too_large'
  switch (issue?.code) {
    case 'invalid_type':
      // A number that is not whole is of the right type.
      return issue.expected === 'int' ? 'out_of_range' : 'bad_request'
    case 'unrecognized_keys':
    case 'invalid_union':
    case undefined:
      return 'bad_request'
    default:
      return 'out_of_range'
  }
}
