// A queue of bytes in one growing allocation. Nothing is allocated while it is empty and small ones stay small: an idle agent must cost next to nothing.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes {
  uint8_t *data;
  size_t start, end, capacity;
  bool failed;  // an append ran out of memory; stays set until bytes_reset
};

static inline size_t bytes_count(const struct bytes *b) { return b->end - b->start; }
static inline uint8_t *bytes_front(const struct bytes *b) { return b->data + b->start; }

// Room for `count` more at the back, or NULL. Follow with bytes_filled for as many as were written.
uint8_t *bytes_reserve(struct bytes *b, size_t count);
void bytes_filled(struct bytes *b, size_t count);
void bytes_append(struct bytes *b, const void *from, size_t count);
void bytes_take(struct bytes *b, size_t count);
// Cuts the back so that `count` stay.
void bytes_keep(struct bytes *b, size_t count);
// Gives memory back when the queue is empty and had grown.
void bytes_shrink(struct bytes *b);
void bytes_reset(struct bytes *b);
