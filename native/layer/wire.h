// Frames of docs/layer-protocol.md over one blocking stream. One connection for each process, so the buffers are static.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  WIRE_VERSION = 1,
  WIRE_HEADER_BYTES = 5,
  WIRE_DATA_MAX = 256 << 10,
  WIRE_PAYLOAD_MAX = WIRE_DATA_MAX + (4 << 10),
  // A frame of entries is closed once it has this many bytes.
  WIRE_BATCH_BYTES = 64 << 10,
};

// What the host sends.
enum { ASK_OPEN = 1, ASK_WALK, ASK_CHANGES, ASK_READ, ASK_READ_END, ASK_WRITE, ASK_ENTRY, ASK_DATA, ASK_WRITE_END };
// What the worker sends.
enum { TELL_READY = 1, TELL_ENTRIES, TELL_CHANGED, TELL_DATA, TELL_HOLE, TELL_END, TELL_MISSING, TELL_DONE, TELL_ERROR };
enum { CHANGED_PRESENT = 1, CHANGED_REMOVED };

// Bytes of somebody else's buffer.
struct span {
  const uint8_t *bytes;
  size_t length;
};

struct ask {
  uint8_t type;
  struct span payload;  // good until the next call
};

void wire_start(int fd);
// False at the end of the connection. Sends what is queued before it waits. A header over its bound ends the session.
bool wire_next(struct ask *ask);

// Begins a frame, or goes on with an open one of that type, with room for `most` bytes. Sends what is queued when it is much.
void wire_begin(uint8_t type, size_t most);
void wire_batch(uint8_t type, size_t most);
void wire_put(uint64_t value, int bytes);
void wire_put_bytes(const void *bytes, size_t count);
// u16 length and bytes.
void wire_put_span(const void *bytes, size_t count);
// Where the next bytes of the open frame go, for a read straight into it.
uint8_t *wire_room(void);
void wire_filled(size_t count);
// Forgets the open frame.
void wire_cancel(void);
void wire_flush(void);

// Tells the host and ends the process. `path` is cut at 4,095 bytes.
_Noreturn void wire_fail(int error, const char *step, struct span path);

static inline struct span span_of(const void *bytes, size_t length) { return (struct span){bytes, length}; }
static inline struct span no_path(void) { return (struct span){NULL, 0}; }
