// Cuts what the host sends into frames. Pure: bytes go in through `in`, frames come out of frames_next.
#pragma once
#include "bytes.h"
#include "codec.h"

// hunting ──marker──▶ cutting ──broken header──▶ (the owner resets: hunting)
struct frames {
  struct bytes in;
  size_t spent;  // bytes of the frame handed out last
  bool cutting;
};

enum frames_event { FRAMES_NONE, FRAMES_MARKER, FRAMES_FRAME, FRAMES_BROKEN };

// How much it makes sense to read next; grows to what the frame under way needs.
size_t frames_wanted(const struct frames *f);
// The payload may be written to and is good until the next call. A marker where a frame would begin is a new connection.
enum frames_event frames_next(struct frames *f, struct header *header, uint8_t **payload);
void frames_reset(struct frames *f);
