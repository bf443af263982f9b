#define _GNU_SOURCE
#include "frames.h"

#include <string.h>

enum { READ_BYTES = 16 << 10 };

size_t frames_wanted(const struct frames *f) {
  size_t held = bytes_count(&f->in) - f->spent;
  struct header header;
  if (!f->cutting || held < HEADER_BYTES || !decode_header(bytes_front(&f->in) + f->spent, &header)) return READ_BYTES;
  size_t whole = HEADER_BYTES + header.length;
  return whole > held + READ_BYTES ? whole - held : READ_BYTES;
}

static enum frames_event hunt(struct frames *f) {
  size_t held = bytes_count(&f->in);
  uint8_t *front = bytes_front(&f->in);
  uint8_t *found = held ? memmem(front, held, MARKER, MARKER_BYTES) : NULL;
  if (found) {
    bytes_take(&f->in, (size_t)(found - front) + MARKER_BYTES);
    f->cutting = true;
    return FRAMES_MARKER;
  }
  if (held >= MARKER_BYTES) bytes_take(&f->in, held - (MARKER_BYTES - 1));
  return FRAMES_NONE;
}

enum frames_event frames_next(struct frames *f, struct header *header, uint8_t **payload) {
  bytes_take(&f->in, f->spent);
  f->spent = 0;
  if (!f->cutting) return hunt(f);
  size_t held = bytes_count(&f->in);
  uint8_t *front = bytes_front(&f->in);
  // The marker's first four bytes are no possible length.
  if (held >= 4 && memcmp(front, MARKER, 4) == 0) {
    size_t seen = held < MARKER_BYTES ? held : MARKER_BYTES;
    if (memcmp(front, MARKER, seen) != 0) return FRAMES_BROKEN;
    if (seen < MARKER_BYTES) return FRAMES_NONE;
    bytes_take(&f->in, MARKER_BYTES);
    return FRAMES_MARKER;
  }
  if (held < HEADER_BYTES) return FRAMES_NONE;
  if (!decode_header(front, header)) return FRAMES_BROKEN;
  if (held < HEADER_BYTES + (size_t)header->length) return FRAMES_NONE;
  *payload = front + HEADER_BYTES;
  f->spent = HEADER_BYTES + header->length;
  return FRAMES_FRAME;
}

void frames_reset(struct frames *f) {
  bytes_reset(&f->in);
  *f = (struct frames){0};
}
