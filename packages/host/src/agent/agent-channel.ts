import type { AgentExit } from './connection.ts'
import type { ReceivedStream } from './received-stream.ts'

/** What the connection tells a channel. Each method throws AgentProtocolError for what cannot be. */
export interface AgentChannel {
  onOpened(pid: number): void
  onExit(exit: AgentExit): void
  onData(stream: number, offset: number, bytes: Buffer): void
  onEof(stream: number, total: number, dropped: number): void
  /** The agent took this much of stream 0. */
  onAck(total: number): void
  /** The connection is over; `byUs` when we closed it. */
  onLost(error: Error, byUs: boolean): void
}

/** What a channel may ask of the connection. */
export interface AgentWire {
  /** Queues frames; everything of one tick leaves in one write. Buffers must not change afterwards. */
  send(...frames: Buffer[]): void
  /** Has `stream.takeAck()` called at the next flush. */
  acknowledge(stream: ReceivedStream, urgent: boolean): void
  /** Bytes held for channels that nobody has resumed yet, as a difference. */
  parked(bytes: number): void
  /** The channel is over: later frames for it are dropped. */
  forget(channel: number): void
}
