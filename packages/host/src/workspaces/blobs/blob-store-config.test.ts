import { describe, expect, it } from 'vitest'
import { readBlobStoreConfig } from './blob-store-config.ts'

const read = (environment: Record<string, string>) => readBlobStoreConfig(environment, '/var/lib/mags/objects')

describe('where objects are kept', () => {
  it('is a folder without a bucket', () => {
    expect(read({ AWS_ACCESS_KEY_ID: 'a' })).toEqual({ place: { kind: 'folder', folder: '/var/lib/mags/objects' } })
    expect(read({ MAGS_S3_BUCKET: '', MAGS_ENCRYPTION_KEY_FILE: '/k' })).toEqual({ place: { kind: 'folder', folder: '/var/lib/mags/objects' }, keyFile: '/k' })
  })

  it('is a bucket, told by variables of ours', () => {
    const environment = {
      MAGS_S3_BUCKET: 'mags',
      MAGS_S3_ENDPOINT: 'http://10.1.2.3:9000/',
      MAGS_S3_REGION: 'eu-1',
      MAGS_S3_PREFIX: '/a/b/',
      MAGS_S3_ACCESS_KEY_ID: 'id',
      MAGS_S3_SECRET_ACCESS_KEY: 'secret',
      AWS_SESSION_TOKEN: 'of other credentials',
    }
    expect(read(environment).place).toEqual({
      kind: 's3',
      s3: { bucket: 'mags', endpoint: 'http://10.1.2.3:9000', region: 'eu-1', prefix: 'a/b', credentials: { accessKeyId: 'id', secretAccessKey: 'secret' } },
    })
  })

  it('takes the AWS variables where ours are not set', () => {
    const environment = {
      MAGS_S3_BUCKET: 'mags',
      AWS_ACCESS_KEY_ID: 'id',
      AWS_SECRET_ACCESS_KEY: 'secret',
      AWS_SESSION_TOKEN: 'token',
      AWS_REGION: 'r',
      AWS_ENDPOINT_URL: 'https://all',
      AWS_ENDPOINT_URL_S3: 'https://s3',
    }
    expect(read(environment).place).toEqual({
      kind: 's3',
      s3: {
        bucket: 'mags',
        endpoint: 'https://s3',
        region: 'r',
        prefix: '',
        credentials: { accessKeyId: 'id', secretAccessKey: 'secret', sessionToken: 'token' },
      },
    })
    expect(read({ MAGS_S3_BUCKET: 'mags' }).place).toEqual({ kind: 's3', s3: { bucket: 'mags', region: 'us-east-1', prefix: '' } })
  })

  it('says what is wrong', () => {
    expect(() => read({ MAGS_S3_BUCKET: 'a/b' })).toThrow('MAGS_S3_BUCKET')
    expect(() => read({ MAGS_S3_BUCKET: 'mags', MAGS_S3_PREFIX: '../x' })).toThrow('MAGS_S3_PREFIX')
    expect(() => read({ MAGS_S3_BUCKET: 'mags', MAGS_S3_ACCESS_KEY_ID: 'id' })).toThrow('MAGS_S3_SECRET_ACCESS_KEY is not')
    expect(() => read({ MAGS_S3_BUCKET: 'mags', AWS_SECRET_ACCESS_KEY: 's' })).toThrow('AWS_ACCESS_KEY_ID is not')
  })
})
