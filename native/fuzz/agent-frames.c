// The agent's way from bytes off the wire to its handlers. The handlers are stand-ins that read everything they are given and act on nothing.
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../agent/channel.h"
#include "../agent/dial.h"
#include "../agent/disk.h"
#include "../agent/dispatch.h"
#include "../agent/exec.h"
#include "../agent/file-work.h"
#include "../agent/frames.h"
#include "../agent/identity.h"
#include "../agent/init-world.h"
#include "../agent/process.h"
#include "../agent/root.h"
#include "../agent/stats.h"

static volatile size_t sum;
static struct channel only;
static bool open_channel;

static void touch(const void *bytes, size_t length) {
  for (size_t i = 0; i < length; i++) sum += ((const uint8_t *)bytes)[i];
}
static void touch_string(const char *string) { touch(string, strlen(string) + 1); }

struct channel *channel_find(uint32_t id) { return open_channel && only.id == id ? &only : NULL; }
struct channel *channel_add(uint32_t id, uint8_t kind, uint32_t window) {
  if (open_channel) {
    errno = EAGAIN;
    return NULL;
  }
  only = (struct channel){.id = id, .kind = kind, .window = window};
  open_channel = true;
  return &only;
}
void channel_close(struct channel *ch) {
  (void)ch;
  open_channel = false;
}
bool channel_input(struct channel *ch, uint64_t offset, const uint8_t *bytes, size_t count) {
  touch(bytes, count);
  return offset <= ch->received;
}
bool channel_input_end(struct channel *ch, uint64_t total) { return total == ch->received; }
bool channel_acked(struct channel *ch, int stream, uint64_t total) { return total <= ch->out[stream - 1].reached; }
void channel_discard(struct channel *ch, int stream) { ch->out[stream - 1].discarding = true; }
void channel_signal(const struct channel *ch, int signal) { sum += ch->id + (unsigned)signal; }
void channel_resize(const struct channel *ch, uint16_t rows, uint16_t columns) { sum += ch->id + rows + columns; }
void process_signal_all(int signal) { sum += (unsigned)signal; }
void dial_open(struct channel *ch, uint16_t port) { ch->port = port; }
void exec_open(struct channel *ch, struct exec_request *request) {
  (void)ch;
  for (char **string = request->argv; *string; string++) touch_string(*string);
  for (char **string = request->env; *string; string++) touch_string(*string);
  touch_string(request->cwd);
  touch(request->script.bytes, request->script.length);
  request->argv[request->argc] = (char[]){"script"};
  if (request->argv[request->argc + 1]) abort();
}

void file_work_open(struct channel *ch, const struct file_request *request) {
  sum += ch->id + request->op + request->first + request->second;
  touch_string(request->path);
}

bool root_is_vm(void) { return true; }
bool init_world_lives(void) { return sum % 2 == 1; }
bool disk_is_frozen(void) { return false; }
int disk_attach(const char *serial, const uint8_t uuid[16], const char *scope) {
  touch_string(serial);
  touch(uuid, 16);
  if (scope) touch_string(scope);
  return 0;
}
int disk_detach(void) { return 0; }
void disk_freeze(uint32_t request, struct bytes *out) { put_reply_head(out, request, 0, 0); }
int disk_thaw(void) { return 0; }
int identity_set(const struct identity *identity) {
  touch_string(identity->hostname);
  touch(identity->entropy.bytes, identity->entropy.length);
  touch(identity->hosts.bytes, identity->hosts.length);
  touch(identity->resolv_conf.bytes, identity->resolv_conf.length);
  touch(identity->machine_id.bytes, identity->machine_id.length);
  return 0;
}
int stats_read(struct stats *stats) {
  *stats = (struct stats){0};
  return 0;
}
// What the agent writes is cut by the same rules: whole frames, none over its limit.
static void check_output(struct bytes *out) {
  while (bytes_count(out) > 0) {
    struct header header;
    if (bytes_count(out) < HEADER_BYTES || !decode_header(bytes_front(out), &header) || header.length > AGENT_PAYLOAD_MAX) abort();
    if (bytes_count(out) < HEADER_BYTES + header.length) abort();
    bytes_take(out, HEADER_BYTES + header.length);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct frames frames = {0};
  struct bytes out = {0};
  struct header header;
  uint8_t *payload;
  // The marker is given; the first byte says in what pieces the rest arrives.
  size_t piece = size ? (size_t)data[0] + 1 : 1;
  bytes_append(&frames.in, MARKER, MARKER_BYTES);
  open_channel = false;
  bool good = true;
  for (size_t at = 1; good && at < size; at += piece) {
    bytes_append(&frames.in, data + at, piece < size - at ? piece : size - at);
    for (enum frames_event event; good && (event = frames_next(&frames, &header, &payload)) != FRAMES_NONE;) {
      good = event == FRAMES_MARKER || (event == FRAMES_FRAME && dispatch(&header, payload, &out));
      check_output(&out);
    }
  }
  bytes_reset(&out);
  frames_reset(&frames);
  return 0;
}
