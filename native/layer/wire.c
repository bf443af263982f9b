#define _GNU_SOURCE
#include "wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PATH_MOST = 4095, IN_BYTES = 512 << 10, OUT_BYTES = 2 * (WIRE_HEADER_BYTES + WIRE_PAYLOAD_MAX), OUT_FULL = 256 << 10 };

static int peer = -1;
static uint8_t in[IN_BYTES], out[OUT_BYTES];
static size_t in_start, in_end, out_end, frame;
static uint8_t frame_type;  // 0: none is open

void wire_start(int fd) { peer = fd; }

static void close_frame(void) {
  if (!frame_type) return;
  size_t length = out_end - frame - WIRE_HEADER_BYTES;
  for (int i = 0; i < 4; i++) out[frame + i] = (uint8_t)(length >> 8 * i);
  out[frame + 4] = frame_type;
  frame_type = 0;
}

void wire_flush(void) {
  close_frame();
  for (size_t sent = 0; sent < out_end;) {
    ssize_t written = write(peer, out + sent, out_end - sent);
    if (written < 0 && errno == EINTR) continue;
    // Nobody is there any more who could be told.
    if (written <= 0) _exit(0);
    sent += (size_t)written;
  }
  out_end = 0;
}

void wire_begin(uint8_t type, size_t most) {
  close_frame();
  if (out_end > OUT_FULL || OUT_BYTES - out_end < WIRE_HEADER_BYTES + most) wire_flush();
  frame = out_end;
  frame_type = type;
  out_end += WIRE_HEADER_BYTES;
}

void wire_batch(uint8_t type, size_t most) {
  size_t held = out_end - frame - WIRE_HEADER_BYTES;
  if (frame_type != type || held >= WIRE_BATCH_BYTES || held + most > WIRE_PAYLOAD_MAX || OUT_BYTES - out_end < most) wire_begin(type, most);
}

void wire_put(uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++, value >>= 8) out[out_end++] = (uint8_t)value;
}

void wire_put_bytes(const void *bytes, size_t count) {
  if (count) memcpy(out + out_end, bytes, count);
  out_end += count;
}

void wire_put_span(const void *bytes, size_t count) {
  wire_put(count, 2);
  wire_put_bytes(bytes, count);
}

uint8_t *wire_room(void) { return out + out_end; }

void wire_filled(size_t count) { out_end += count; }

void wire_cancel(void) {
  out_end = frame;
  frame_type = 0;
}

// False at the end of the stream.
static bool receive(void) {
  if (in_start == in_end) in_start = in_end = 0;
  if (IN_BYTES - in_start < WIRE_HEADER_BYTES + WIRE_PAYLOAD_MAX) {
    memmove(in, in + in_start, in_end - in_start);
    in_end -= in_start;
    in_start = 0;
  }
  ssize_t length;
  do length = read(peer, in + in_end, IN_BYTES - in_end);
  while (length < 0 && errno == EINTR);
  if (length <= 0) return false;
  in_end += (size_t)length;
  return true;
}

bool wire_next(struct ask *ask) {
  for (;;) {
    const uint8_t *at = in + in_start;
    if (in_end - in_start >= WIRE_HEADER_BYTES) {
      uint32_t length = (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
      if (length > WIRE_PAYLOAD_MAX) wire_fail(EMSGSIZE, "request", no_path());
      if (in_end - in_start - WIRE_HEADER_BYTES >= length) {
        *ask = (struct ask){at[4], {at + WIRE_HEADER_BYTES, length}};
        in_start += WIRE_HEADER_BYTES + length;
        return true;
      }
    }
    wire_flush();
    if (!receive()) return false;
  }
}

_Noreturn void wire_fail(int error, const char *step, struct span path) {
  if (path.length > PATH_MOST) path.length = PATH_MOST;
  wire_begin(TELL_ERROR, 16 + 255 + PATH_MOST);
  wire_put((uint32_t)error, 4);
  wire_put_span(step, strnlen(step, 255));
  wire_put_span(path.bytes, path.length);
  wire_flush();
  // The host may be in the middle of sending: closing now would reset the connection before it has read why. It closes when it has.
  shutdown(peer, SHUT_WR);
  do in_start = in_end = 0;
  while (receive());
  _exit(1);
}
