// Prints the end of what ./mags test says: each test that failed, with the first line of its reason, and the closing line `N passed, N failed` (and
// `, N skipped`). Ends with 1 when anything failed.
//
//   node setup/count-tests.mjs FAILED_STAGES RESULTS:STATUS…
//
// RESULTS is a file of vitest's JSON reporter, STATUS how that run ended. A file that could not be loaded, an error outside of a test and missing
// RESULTS have no failed test of their own; they count as one.
import { readFileSync } from 'node:fs'
import { relative } from 'node:path'

const [failedStages, ...runs] = process.argv.slice(2)
const total = { passed: 0, failed: Number(failedStages), skipped: 0 }

function readResults(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    return { numPassedTests: 0, numFailedTests: 0, numPendingTests: 0, numTodoTests: 0 }
  }
}

function tellFailed(suite, name, message) {
  const reason = (message ?? '').split('\n')[0].slice(0, 300)
  console.log(`failed: ${relative(process.cwd(), suite.name)}${name === undefined ? '' : ` > ${name}`}${reason === '' ? '' : `: ${reason}`}`)
}

for (const run of runs) {
  const [, file, status] = /^(.*):([^:]*)$/.exec(run)
  const results = readResults(file)
  const broken = (results.testResults ?? []).filter((suite) => suite.status === 'failed' && suite.assertionResults.every((test) => test.status !== 'failed'))
  const failed = results.numFailedTests + broken.length
  total.failed += status !== '0' && failed === 0 ? 1 : failed
  total.passed += results.numPassedTests
  total.skipped += results.numPendingTests + results.numTodoTests
  for (const suite of broken) tellFailed(suite, undefined, suite.message)
  for (const suite of results.testResults ?? []) {
    for (const test of suite.assertionResults) if (test.status === 'failed') tellFailed(suite, test.fullName, test.failureMessages?.[0])
  }
  if (status !== '0' && failed === 0) console.log(`failed: ${relative(process.cwd(), file)} has no failed test, but its run ended with ${status}`)
}
console.log(`${total.passed} passed, ${total.failed} failed${total.skipped > 0 ? `, ${total.skipped} skipped` : ''}`)
process.exitCode = total.failed > 0 ? 1 : 0
