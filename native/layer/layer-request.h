// Reads what the host asks. Nothing here acts: what comes out keeps the promises below whatever bytes go in.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "wire.h"

enum { LAYER_PATH_MAX = 4095, LAYER_NAME_MAX = 255, LAYER_ATTRIBUTES_MAX = 64 << 10, LAYER_ID_MAX = 0xfffffffe };

enum layer_kind { KIND_DIRECTORY = 1, KIND_FILE, KIND_SYMLINK, KIND_FIFO, KIND_SOCKET, KIND_WHITEOUT, KIND_DEVICE };

struct layer_reader {
  const uint8_t *at, *end;
  bool bad;  // a read went past the end; what it gave was zero
};

static inline struct layer_reader layer_read(struct span bytes) { return (struct layer_reader){bytes.bytes, bytes.bytes + bytes.length, false}; }
uint64_t layer_read_number(struct layer_reader *r, int bytes);
// u16 length and bytes; empty when bad.
struct span layer_read_span(struct layer_reader *r);

// Names of 1 to 255 bytes without NUL, none of them "." or "..", joined by "/": at most 4,095 bytes, not empty.
bool layer_path_good(struct span path);
// A name a layer keeps, with a value it may have.
bool layer_attribute_kept(const char *name, size_t length);

struct attribute {
  struct span name, value;
};
// The next attribute; false at the end, or when `r` turned bad.
bool layer_next_attribute(struct layer_reader *r, uint32_t *left, struct attribute *attribute);

// What to make. The root's path is empty, and it is a directory.
struct new_entry {
  uint8_t kind;  // any but a device
  uint16_t mode;
  uint32_t uid, gid;
  uint64_t size;
  int64_t mtime_ns;
  struct span path;
  struct span target;   // of a symlink 1 to 4,095 bytes without NUL, else empty
  struct span link_to;  // a good path when it is a hard link, else empty; never of a directory
  uint32_t attribute_count;
  struct span attributes;  // layer_next_attribute reads all of them without turning bad
};

// u32 version, a folder: absolute, or empty in a guest, and perhaps the only name at the top of the layer that is looked at, else empty. False: not a request.
bool layer_decode_open(struct span payload, uint32_t *version, struct span *folder, struct span *only);
// The next of the paths to read. False at the end, or when `r` turned bad.
bool layer_next_path(struct layer_reader *r, struct span *path);
bool layer_decode_entry(struct span payload, struct new_entry *entry);
bool layer_decode_data(struct span payload, uint64_t *offset, struct span *bytes);
