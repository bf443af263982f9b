export { createServer, type MagsServer, type MagsTokens, type ServerDeps, type ServerLimits } from './create-server.ts'
export type { DatabaseConfig } from './state/database.ts'
