#include "bytes.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_BYTES = 1024, KEPT_BYTES = 16 << 10 };

uint8_t *bytes_reserve(struct bytes *b, size_t count) {
  if (b->failed) return NULL;
  if (b->capacity - b->end >= count) return b->data + b->end;
  size_t held = bytes_count(b);
  // Moving to the front is worth it only when that frees at least as much as is moved.
  if (b->capacity - held >= count && b->start >= held) {
    memmove(b->data, b->data + b->start, held);
    b->start = 0;
    b->end = held;
    return b->data + held;
  }
  size_t capacity = b->capacity ? b->capacity : FIRST_BYTES;
  while (capacity - held < count) capacity *= 2;
  uint8_t *data = malloc(capacity);
  if (!data) {
    b->failed = true;
    return NULL;
  }
  if (held) memcpy(data, b->data + b->start, held);
  free(b->data);
  *b = (struct bytes){.data = data, .end = held, .capacity = capacity};
  return data + held;
}

void bytes_filled(struct bytes *b, size_t count) { b->end += count; }

void bytes_append(struct bytes *b, const void *from, size_t count) {
  if (!count) return;
  uint8_t *into = bytes_reserve(b, count);
  if (!into) return;
  memcpy(into, from, count);
  b->end += count;
}

void bytes_take(struct bytes *b, size_t count) {
  b->start += count;
  if (b->start == b->end) b->start = b->end = 0;
}

void bytes_keep(struct bytes *b, size_t count) {
  if (bytes_count(b) > count) b->end = b->start + count;
}

void bytes_shrink(struct bytes *b) {
  if (b->start == b->end && b->capacity > KEPT_BYTES) bytes_reset(b);
}

void bytes_reset(struct bytes *b) {
  free(b->data);
  *b = (struct bytes){0};
}
