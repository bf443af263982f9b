#pragma once
#include <stddef.h>
#include <stdint.h>

// The extended attributes of one path that a layer keeps, in the order of their names, as they go over the wire.
struct attributes {
  uint32_t count;
  size_t length;
  uint8_t *bytes;   // static: good until the next call
  const char *why;  // of an error
};

// `name` in the current directory; a link is not followed. 0 or an errno: EOPNOTSUPP when the entry is part of an overlay feature that a layer cannot have.
int attributes_read(const char *name, struct attributes *attributes);
