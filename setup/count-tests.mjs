// Prints the closing line of ./mags test: `N passed, N failed` (and `, N skipped`), and ends with 1 when anything failed.
//
//   node setup/count-tests.mjs FAILED_STAGES RESULTS:STATUS…
//
// RESULTS is a file of vitest's JSON reporter, STATUS how that run ended. A file that could not be loaded, an error outside of a test and missing
// RESULTS have no failed test of their own; they count as one.
import { readFileSync } from 'node:fs'

const [failedStages, ...runs] = process.argv.slice(2)
const total = { passed: 0, failed: Number(failedStages), skipped: 0 }

function readResults(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    return { numPassedTests: 0, numFailedTests: 0, numPendingTests: 0, numTodoTests: 0 }
  }
}

for (const run of runs) {
  const [, file, status] = /^(.*):([^:]*)$/.exec(run)
  const results = readResults(file)
  const broken = (results.testResults ?? []).filter((suite) => suite.status === 'failed' && suite.assertionResults.every((test) => test.status !== 'failed'))
  const failed = results.numFailedTests + broken.length
  total.failed += status !== '0' && failed === 0 ? 1 : failed
  total.passed += results.numPassedTests
  total.skipped += results.numPendingTests + results.numTodoTests
}
console.log(`${total.passed} passed, ${total.failed} failed${total.skipped > 0 ? `, ${total.skipped} skipped` : ''}`)
process.exitCode = total.failed > 0 ? 1 : 0
