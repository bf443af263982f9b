#include "dispatch.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "channel.h"
#include "dial.h"
#include "exec.h"
#include "file-work.h"
#include "process.h"
#include "request.h"

// There is no channel to hold on to; the host is told at once.
static bool refuse(struct bytes *out, uint32_t channel, int error) {
  put_exit(out, channel, &(struct exit_record){.kind = NOT_STARTED, .code = error}, strerror(error));
  return true;
}

static bool take_exec(uint32_t id, struct reader *r, struct bytes *out) {
  struct exec_request request;
  int error = decode_exec(r, &request);
  if (error == EPROTO) return false;
  if (error) return refuse(out, id, error);
  struct channel *ch = channel_add(id, KIND_EXEC, request.window);
  if (ch) exec_open(ch, &request);
  else refuse(out, id, errno);
  free(request.argv);
  return true;
}

static bool take_dial(uint32_t id, struct reader *r, struct bytes *out) {
  uint16_t port = read_u16(r);
  uint32_t window = read_u32(r);
  if (!reader_done(r)) return false;
  struct channel *ch = channel_add(id, KIND_DIAL, window);
  if (!ch) return refuse(out, id, errno);
  dial_open(ch, port);
  return true;
}

static bool take_file(uint32_t id, struct reader *r, struct bytes *out) {
  struct file_request request;
  if (!decode_file(r, &request)) return false;
  struct channel *ch = channel_add(id, KIND_FILE, request.window);
  if (!ch) return refuse(out, id, errno);
  file_work_open(ch, &request);
  return true;
}

static bool take_signal(const struct channel *ch, struct reader *r) {
  uint8_t signal = read_u8(r), target = read_u8(r);
  if (!reader_done(r) || signal < 1 || signal > SIGRTMAX || target > 1) return false;
  if (target == 1) process_signal_all(signal);
  else if (ch) channel_signal(ch, signal);
  return true;
}

// Frames for a channel that is not there are no fault: it may have been refused while they were under way.
static bool take_for_channel(const struct header *header, struct channel *ch, struct reader *r) {
  bool input = header->stream == 0;
  uint64_t number;
  switch (header->type) {
    case FRAME_DATA:
      number = read_u64(r);
      return input && !r->bad && (!ch || channel_input(ch, number, r->at, (size_t)(r->end - r->at)));
    case FRAME_EOF:
      number = read_u64(r);
      read_u64(r);
      return input && reader_done(r) && (!ch || channel_input_end(ch, number));
    case FRAME_ACK:
      number = read_u64(r);
      return !input && reader_done(r) && (!ch || channel_acked(ch, header->stream, number));
    case FRAME_SIGNAL:
      return take_signal(ch, r);
    case FRAME_RESIZE: {
      uint16_t rows = read_u16(r), columns = read_u16(r);
      if (ch && !r->bad) channel_resize(ch, rows, columns);
      return reader_done(r);
    }
    case FRAME_DISCARD:
      if (ch && !input) channel_discard(ch, header->stream);
      return !input && reader_done(r);
    case FRAME_CLOSE:
      if (ch) channel_close(ch);
      return reader_done(r);
    default:
      return false;
  }
}

bool dispatch(const struct header *header, uint8_t *payload, struct bytes *out) {
  struct reader r = {payload, payload + header->length, false};
  if (header->type == FRAME_REQUEST) return request_take(header->channel, &r, out);
  struct channel *ch = channel_find(header->channel);
  if (header->type == FRAME_EXEC || header->type == FRAME_DIAL || header->type == FRAME_FILE) {
    if (ch || header->channel == 0) return false;
    if (header->type == FRAME_FILE) return take_file(header->channel, &r, out);
    return header->type == FRAME_EXEC ? take_exec(header->channel, &r, out) : take_dial(header->channel, &r, out);
  }
  return take_for_channel(header, ch, &r);
}
