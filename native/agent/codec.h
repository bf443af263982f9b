// Layout of the frames in docs/agent-protocol.md: reads what the host sends, writes what the agent sends. No I/O and no state.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"

enum {
  HEADER_BYTES = 12,
  MARKER_BYTES = 16,
  NONCE_BYTES = 16,
  VERSION = 1,
  HOST_PAYLOAD_MAX = 2 << 20,
  AGENT_PAYLOAD_MAX = 65536,
  DATA_BYTES_MAX = AGENT_PAYLOAD_MAX - 8,
  CHANNELS_MAX = 256,
  EXEC_BYTES_MAX = 512 << 10,
  EXEC_STRINGS_MAX = 4096,
  LIMITS_MAX = 16,
  WINDOW_MIN = 4 << 10,
  WINDOW_MAX = 1 << 20,
  STDIN_WINDOW = 256 << 10,
  PING_BYTES_MAX = 60000,
};

enum frame_type {
  FRAME_HELLO = 1,
  FRAME_EXEC,
  FRAME_DIAL,
  FRAME_DATA,
  FRAME_EOF,
  FRAME_ACK,
  FRAME_SIGNAL,
  FRAME_RESIZE,
  FRAME_DISCARD,
  FRAME_CLOSE,
  FRAME_OPENED,
  FRAME_EXIT,
  FRAME_REQUEST,
  FRAME_REPLY,
  FRAME_FILE,
};

enum { EXEC_PTY = 1, EXEC_STDIN = 2, EXEC_SCRIPT = 4, EXEC_INIT = 8 };
enum { KIND_EXEC = 0, KIND_DIAL = 1, KIND_FILE = 2 };
enum { EXITED = 0, SIGNALLED = 1, NOT_STARTED = 2, REBOOTED = 3, POWERED_OFF = 4 };
enum { FEATURE_INIT = 1, FEATURE_IPV6 = 2 };
enum { OP_PING = 1, OP_IDENTITY, OP_ATTACH, OP_DETACH, OP_FREEZE, OP_THAW, OP_STATS };
enum { FILE_STAT = 1, FILE_LIST, FILE_READ, FILE_WRITE, FILE_REMOVE, FILE_SFTP };

extern const uint8_t MARKER[MARKER_BYTES];

struct header {
  uint32_t length;
  uint8_t type, stream;
  uint32_t channel;
};

// False: no host of ours writes such a header.
bool decode_header(const uint8_t bytes[HEADER_BYTES], struct header *header);

// A cursor over a payload. A read past the end sets `bad` and gives zeros; callers check once, with `reader_done`.
// Strings are made NUL-terminated in place (moved over their own length), so the payload must be writable and is spent afterwards.
struct reader {
  uint8_t *at, *end;
  bool bad;
};

struct blob {
  const uint8_t *bytes;
  uint32_t length;
};

uint8_t read_u8(struct reader *r);
uint16_t read_u16(struct reader *r);
uint32_t read_u32(struct reader *r);
uint64_t read_u64(struct reader *r);
const uint8_t *read_bytes(struct reader *r, size_t length);
struct blob read_blob(struct reader *r);
char *read_string(struct reader *r);
bool reader_done(const struct reader *r);

struct limit {
  uint8_t resource;
  uint64_t soft, hard;
};

struct exec_request {
  uint32_t flags, window;
  uint16_t rows, columns;
  uint8_t limit_count;
  struct limit limits[LIMITS_MAX];
  // Each ends with a null pointer; argv has room for one more. Free with free(argv): both live in one allocation.
  char **argv, **env;
  uint32_t argc;
  const char *cwd;
  struct blob script;
};

// 0; EPROTO for a payload that breaks the protocol; E2BIG or ENOMEM for one that is merely too much.
int decode_exec(struct reader *r, struct exec_request *exec);

// One operation on the sandbox's files; what `first` and `second` mean depends on it.
struct file_request {
  uint32_t window;
  uint8_t op;
  uint64_t first, second;
  const char *path;
};

bool decode_file(struct reader *r, struct file_request *file);

struct network {
  uint8_t mac[6], address[4], gateway[4], prefix;
  uint16_t mtu;
};

struct network6 {
  uint8_t address[16], gateway[16], gateway_mac[6];
};

struct identity {
  uint64_t time_ns;
  struct blob entropy, hosts, resolv_conf, machine_id;
  const char *hostname;
  bool has_network, has_network6;
  struct network network;
  struct network6 network6;
};

bool decode_identity(struct reader *r, struct identity *identity);

struct live_stream {
  uint64_t sent, acked;
  bool eof;
};

struct live_channel {
  uint32_t channel, pid;
  uint8_t kind, exit_kind;
  bool exited;
  int32_t exit_code;
  uint64_t received;
  struct live_stream out[2];
};

struct exit_record {
  uint8_t kind;
  int32_t code;
  uint64_t user_us, system_us, max_rss_kib;
};

struct stats {
  uint64_t memory_total, memory_available, disk_total, disk_available;
  uint32_t processes;
};

struct entry {
  char type;
  uint32_t mode;
  uint64_t size;
  int64_t mtime_ns;
};

// The encoders append to `out`; out of memory shows in `out->failed`.
void put_u8(struct bytes *out, uint8_t value);
void put_u16(struct bytes *out, uint16_t value);
void put_u32(struct bytes *out, uint32_t value);
void put_u64(struct bytes *out, uint64_t value);
void put_header(struct bytes *out, uint32_t length, uint8_t type, uint8_t stream, uint32_t channel);
// HELLO is its head, then `count` channels, then features.
void put_hello(struct bytes *out, const uint8_t nonce[NONCE_BYTES], uint8_t mode, uint32_t count);
void put_live_channel(struct bytes *out, const struct live_channel *live);
void put_features(struct bytes *out, uint32_t features);
void put_opened(struct bytes *out, uint32_t channel, uint32_t pid);
// The caller appends `length` bytes afterwards.
void put_data_head(struct bytes *out, uint32_t channel, uint8_t stream, uint64_t offset, uint32_t length);
void put_eof(struct bytes *out, uint32_t channel, uint8_t stream, uint64_t total, uint64_t dropped);
void put_ack(struct bytes *out, uint32_t channel, uint64_t total);
void put_exit(struct bytes *out, uint32_t channel, const struct exit_record *exit, const char *words);
// `length` bytes of result follow.
void put_reply_head(struct bytes *out, uint32_t request, int error, uint32_t length);
void put_reply_stats(struct bytes *out, uint32_t request, const struct stats *stats);
void put_entry(struct bytes *out, const char *name, const struct entry *entry);
