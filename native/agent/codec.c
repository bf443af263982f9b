#include "codec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const uint8_t MARKER[MARKER_BYTES] = {0, 'M', 'A', 'G', 'S', '-', 'A', 'G', 'E', 'N', 'T', '-', '0', '1', '\r', '\n'};

static uint64_t load(const uint8_t *bytes, int count) {
  uint64_t value = 0;
  for (int i = count - 1; i >= 0; i--) value = value << 8 | bytes[i];
  return value;
}

bool decode_header(const uint8_t bytes[HEADER_BYTES], struct header *header) {
  *header = (struct header){.length = (uint32_t)load(bytes, 4), .type = bytes[4], .stream = bytes[5], .channel = (uint32_t)load(bytes + 8, 4)};
  return header->length <= HOST_PAYLOAD_MAX && load(bytes + 6, 2) == 0 && header->stream <= 2;
}

const uint8_t *read_bytes(struct reader *r, size_t length) {
  if (r->bad || length > (size_t)(r->end - r->at)) {
    r->bad = true;
    return NULL;
  }
  const uint8_t *bytes = r->at;
  r->at += length;
  return bytes;
}

static uint64_t read_integer(struct reader *r, int count) {
  const uint8_t *bytes = read_bytes(r, (size_t)count);
  return bytes ? load(bytes, count) : 0;
}

uint8_t read_u8(struct reader *r) { return (uint8_t)read_integer(r, 1); }
uint16_t read_u16(struct reader *r) { return (uint16_t)read_integer(r, 2); }
uint32_t read_u32(struct reader *r) { return (uint32_t)read_integer(r, 4); }
uint64_t read_u64(struct reader *r) { return read_integer(r, 8); }

struct blob read_blob(struct reader *r) {
  uint32_t length = read_u32(r);
  const uint8_t *bytes = read_bytes(r, length);
  return bytes ? (struct blob){bytes, length} : (struct blob){NULL, 0};
}

char *read_string(struct reader *r) {
  static char empty[1];
  uint32_t length = read_u32(r);
  uint8_t *bytes = r->at;
  if (!read_bytes(r, length) || memchr(bytes, 0, length)) {
    r->bad = true;
    return empty;
  }
  char *string = (char *)bytes - 4;
  memmove(string, bytes, length);
  string[length] = 0;
  return string;
}

bool reader_done(const struct reader *r) { return !r->bad && r->at == r->end; }

// Reads past a string; its length, or 0 with `bad` set.
static uint32_t skip_string(struct reader *r) {
  uint32_t length = read_u32(r);
  read_bytes(r, length);
  return length;
}

// What argv and environment hold is known only after walking them, so they are walked twice: counted first, then taken.
static int count_strings(struct reader r, uint64_t *count) {
  uint64_t bytes = 0;
  *count = 0;
  for (int list = 0; list < 2; list++) {
    uint32_t strings = read_u32(&r);
    if (r.bad || strings > (size_t)(r.end - r.at) / 4) return EPROTO;
    *count += strings;
    for (uint32_t i = 0; i < strings && !r.bad; i++) bytes += skip_string(&r);
  }
  bytes += skip_string(&r);
  if (r.bad) return EPROTO;
  return bytes > EXEC_BYTES_MAX || *count > EXEC_STRINGS_MAX ? E2BIG : 0;
}

int decode_exec(struct reader *r, struct exec_request *exec) {
  *exec = (struct exec_request){0};
  exec->flags = read_u32(r);
  exec->window = read_u32(r);
  exec->rows = read_u16(r);
  exec->columns = read_u16(r);
  exec->limit_count = read_u8(r);
  if (exec->limit_count > LIMITS_MAX || exec->flags > (EXEC_PTY | EXEC_STDIN | EXEC_SCRIPT | EXEC_INIT)) return EPROTO;
  for (int i = 0; i < exec->limit_count; i++) {
    struct limit *limit = &exec->limits[i];
    limit->resource = read_u8(r);
    limit->soft = read_u64(r);
    limit->hard = read_u64(r);
  }
  uint64_t count;
  int error = count_strings(*r, &count);
  if (error) return error;

  char **slots = calloc(count + 3, sizeof *slots);
  if (!slots) return ENOMEM;
  exec->argc = read_u32(r);
  exec->argv = slots;
  for (uint32_t i = 0; i < exec->argc; i++) *slots++ = read_string(r);
  slots += 2;
  exec->env = slots;
  uint32_t env = read_u32(r);
  for (uint32_t i = 0; i < env; i++) *slots++ = read_string(r);
  exec->cwd = read_string(r);
  if (exec->flags & EXEC_SCRIPT) exec->script = read_blob(r);
  if (reader_done(r) && exec->argc > 0) return 0;
  free(exec->argv);
  exec->argv = NULL;
  return EPROTO;
}

bool decode_file(struct reader *r, struct file_request *file) {
  *file = (struct file_request){.window = read_u32(r)};
  file->op = read_u8(r);
  file->first = read_u64(r);
  file->second = read_u64(r);
  file->path = read_string(r);
  return reader_done(r) && file->op >= FILE_STAT && file->op <= FILE_SFTP;
}

bool decode_identity(struct reader *r, struct identity *identity) {
  *identity = (struct identity){.time_ns = read_u64(r)};
  identity->entropy = read_blob(r);
  identity->hostname = read_string(r);
  identity->hosts = read_blob(r);
  identity->resolv_conf = read_blob(r);
  identity->machine_id = read_blob(r);
  uint8_t network = read_u8(r);
  identity->has_network = network == 1;
  if (network == 1) {
    const uint8_t *addresses = read_bytes(r, 10);
    if (addresses) {
      memcpy(identity->network.mac, addresses, 6);
      memcpy(identity->network.address, addresses + 6, 4);
    }
    identity->network.prefix = read_u8(r);
    const uint8_t *gateway = read_bytes(r, 4);
    if (gateway) memcpy(identity->network.gateway, gateway, 4);
    identity->network.mtu = read_u16(r);
  }
  // Hosts of earlier releases end here.
  identity->has_network6 = !r->bad && r->at < r->end;
  if (identity->has_network6) {
    if (read_u8(r) != 1) return false;
    const uint8_t *addresses = read_bytes(r, sizeof identity->network6);
    if (addresses) memcpy(&identity->network6, addresses, sizeof identity->network6);
  }
  return reader_done(r) && network <= 1 && identity->network.prefix <= 32 && strlen(identity->hostname) <= 64;
}

static void put_integer(struct bytes *out, uint64_t value, size_t count) {
  uint8_t *into = bytes_reserve(out, count);
  if (!into) return;
  for (size_t i = 0; i < count; i++, value >>= 8) into[i] = (uint8_t)value;
  bytes_filled(out, count);
}

void put_u8(struct bytes *out, uint8_t value) { put_integer(out, value, 1); }
void put_u16(struct bytes *out, uint16_t value) { put_integer(out, value, 2); }
void put_u32(struct bytes *out, uint32_t value) { put_integer(out, value, 4); }
void put_u64(struct bytes *out, uint64_t value) { put_integer(out, value, 8); }

static void put_string(struct bytes *out, const char *string) {
  size_t length = strlen(string);
  put_u32(out, (uint32_t)length);
  bytes_append(out, string, length);
}

void put_header(struct bytes *out, uint32_t length, uint8_t type, uint8_t stream, uint32_t channel) {
  put_u32(out, length);
  put_u8(out, type);
  put_u8(out, stream);
  put_u16(out, 0);
  put_u32(out, channel);
}

enum { LIVE_CHANNEL_BYTES = 57 };

void put_hello(struct bytes *out, const uint8_t nonce[NONCE_BYTES], uint8_t mode, uint32_t count) {
  put_header(out, 29 + count * LIVE_CHANNEL_BYTES, FRAME_HELLO, 0, 0);
  put_u32(out, VERSION);
  bytes_append(out, nonce, NONCE_BYTES);
  put_u8(out, mode);
  put_u32(out, count);
}

void put_live_channel(struct bytes *out, const struct live_channel *live) {
  put_u32(out, live->channel);
  put_u8(out, live->kind);
  put_u8(out, live->exited);
  put_u8(out, live->exit_kind);
  put_u32(out, (uint32_t)live->exit_code);
  put_u32(out, live->pid);
  put_u64(out, live->received);
  for (int i = 0; i < 2; i++) {
    put_u64(out, live->out[i].sent);
    put_u64(out, live->out[i].acked);
    put_u8(out, live->out[i].eof);
  }
}

void put_features(struct bytes *out, uint32_t features) { put_u32(out, features); }

void put_opened(struct bytes *out, uint32_t channel, uint32_t pid) {
  put_header(out, 4, FRAME_OPENED, 0, channel);
  put_u32(out, pid);
}

void put_data_head(struct bytes *out, uint32_t channel, uint8_t stream, uint64_t offset, uint32_t length) {
  put_header(out, 8 + length, FRAME_DATA, stream, channel);
  put_u64(out, offset);
}

void put_eof(struct bytes *out, uint32_t channel, uint8_t stream, uint64_t total, uint64_t dropped) {
  put_header(out, 16, FRAME_EOF, stream, channel);
  put_u64(out, total);
  put_u64(out, dropped);
}

void put_ack(struct bytes *out, uint32_t channel, uint64_t total) {
  put_header(out, 8, FRAME_ACK, 0, channel);
  put_u64(out, total);
}

void put_exit(struct bytes *out, uint32_t channel, const struct exit_record *exit, const char *words) {
  put_header(out, 33 + (uint32_t)strlen(words), FRAME_EXIT, 0, channel);
  put_u8(out, exit->kind);
  put_u32(out, (uint32_t)exit->code);
  put_u64(out, exit->user_us);
  put_u64(out, exit->system_us);
  put_u64(out, exit->max_rss_kib);
  put_string(out, words);
}

void put_reply_head(struct bytes *out, uint32_t request, int error, uint32_t length) {
  put_header(out, 4 + length, FRAME_REPLY, 0, request);
  put_u32(out, (uint32_t)error);
}

void put_reply_stats(struct bytes *out, uint32_t request, const struct stats *stats) {
  put_reply_head(out, request, 0, 36);
  put_u64(out, stats->memory_total);
  put_u64(out, stats->memory_available);
  put_u64(out, stats->disk_total);
  put_u64(out, stats->disk_available);
  put_u32(out, stats->processes);
}

void put_entry(struct bytes *out, const char *name, const struct entry *entry) {
  put_string(out, name);
  put_u8(out, (uint8_t)entry->type);
  put_u32(out, entry->mode);
  put_u64(out, entry->size);
  put_u64(out, (uint64_t)entry->mtime_ns);
}
