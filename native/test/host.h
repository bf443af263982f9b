// A small host for tests: starts an agent, speaks the protocol to it and waits at most TEST_WAIT_MS for anything.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "../agent/bytes.h"
#include "../agent/codec.h"

enum { TEST_WAIT_MS = 10000 };

struct frame {
  struct header header;
  uint8_t *payload;  // good until the next call
};

// Starts `program container` with a fresh socket as descriptor 3; ended with the test.
void host_start_agent(const char *program);
pid_t host_agent(void);
// A new connection, which replaces the one before.
void host_connect(void);
// Connect, marker, HELLO; returns the agent's HELLO.
struct frame host_greet(void);
void host_send(const struct bytes *frames);
void host_send_raw(const void *bytes, size_t length);
struct frame host_receive(void);
// The next frame, which must be of this type, stream and channel.
struct frame host_expect(uint8_t type, uint8_t stream, uint32_t channel);
// The agent closed the connection.
void host_expect_closed(void);
bool host_pending(void);

// Writes the real length into the one frame that `out` holds.
void host_end_frame(struct bytes *out);

// Frames, sent at once.
struct program {
  const char *argv[8];
  uint32_t flags, window;
  const char *cwd, *script;
  int resource;  // -1 or 0: no limit is set; else RLIMIT_* with `limit`
  uint64_t limit;
};
void host_exec(uint32_t channel, struct program program);
void host_data(uint32_t channel, uint64_t offset, const void *bytes, size_t length);
void host_eof(uint32_t channel, uint64_t total);
void host_ack(uint32_t channel, uint8_t stream, uint64_t total);
void host_signal(uint32_t channel, uint8_t signal, uint8_t target);
void host_bare(uint8_t type, uint8_t stream, uint32_t channel);

uint64_t get(const uint8_t *bytes, int count);
// What an EXEC comes to when everything is acknowledged at once, in one string each.
struct ending {
  uint8_t kind;
  int32_t code;
  char words[256];
  struct bytes out[2];
  uint64_t dropped[2];
};
// Until EXIT and, unless it did not start, both EOFs; then CLOSE. Free with ending_free.
struct ending host_run_to_end(uint32_t channel);
void ending_free(struct ending *ending);
bool ending_wrote(const struct ending *ending, int stream, const char *text);
