#!/usr/bin/env node
import { enableCompileCache } from 'node:module'

// Before anything else is loaded: compiled code is kept beside the build, which halves the time to start.
enableCompileCache(`${import.meta.dirname}/.compile-cache`)
const { main } = await import('./program.ts')
await main(process.argv.slice(2))
