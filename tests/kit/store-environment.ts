import type { TestS3Server } from './s3-server.ts'

/** Settings of a daemon that stores in a new bucket of this server. */
export async function s3Environment(server: TestS3Server): Promise<Record<string, string>> {
  return {
    MAGS_S3_ENDPOINT: server.endpoint,
    MAGS_S3_BUCKET: await server.createBucket(),
    MAGS_S3_ACCESS_KEY_ID: server.credentials.accessKeyId,
    MAGS_S3_SECRET_ACCESS_KEY: server.credentials.secretAccessKey,
  }
}
