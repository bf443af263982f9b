// Prints the closing line of ./mags test: `N passed, N failed` (and `, N skipped`), and ends with 1 when anything failed.
//
//   node setup/count-tests.mjs RESULTS VITEST_STATUS FAILED_STAGES
//
// RESULTS is the file of vitest's JSON reporter. A file that could not be loaded, an error outside of a test and a missing RESULTS have no
// failed test of their own; they count as one.
import { readFileSync } from 'node:fs'

const [file, vitestStatus, failedStages] = process.argv.slice(2)

function readResults() {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    return { numPassedTests: 0, numFailedTests: 0, numPendingTests: 0, numTodoTests: 0 }
  }
}

const results = readResults()
const broken = (results.testResults ?? []).filter((suite) => suite.status === 'failed' && suite.assertionResults.every((test) => test.status !== 'failed'))
let failed = results.numFailedTests + broken.length
if (vitestStatus !== '0' && failed === 0) failed = 1
failed += Number(failedStages)
const skipped = results.numPendingTests + results.numTodoTests
console.log(`${results.numPassedTests} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`)
process.exitCode = failed > 0 ? 1 : 0
