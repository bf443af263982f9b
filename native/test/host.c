#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

const char *check_what = "";

static pid_t agent;
static int wire = -1;
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static struct bytes received;
static size_t spent;

void host_start_agent(const char *program) {
  // An abstract name: nothing to clean up.
  sprintf(address.sun_path + 1, "mags-agent-test-%d", getpid());
  int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 8) == 0);
  agent = fork();
  if (agent == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(listener, 3);
    if (listener != 3) close(listener);
    execl(program, program, "container", NULL);
    _exit(127);
  }
  close(listener);
}

pid_t host_agent(void) { return agent; }

void host_connect(void) {
  if (wire >= 0) close(wire);
  bytes_reset(&received);
  spent = 0;
  wire = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(connect(wire, (struct sockaddr *)&address, sizeof address) == 0);
}

void host_send_raw(const void *bytes, size_t length) {
  for (size_t done = 0; done < length;) {
    ssize_t written = send(wire, (const char *)bytes + done, length - done, MSG_NOSIGNAL);
    if (written < 0 && (errno == EPIPE || errno == ECONNRESET)) return;  // the agent may have hung up on us already; the test looks for that
    CHECK(written > 0);
    done += (size_t)written;
  }
}

void host_send(const struct bytes *frames) { host_send_raw(bytes_front(frames), bytes_count(frames)); }

// False at the end of the connection.
static bool read_more(void) {
  struct pollfd fd = {.fd = wire, .events = POLLIN};
  CHECK(poll(&fd, 1, TEST_WAIT_MS) == 1);
  uint8_t *into = bytes_reserve(&received, 65536);
  ssize_t length = recv(wire, into, 65536, 0);
  if (length <= 0) return false;
  bytes_filled(&received, (size_t)length);
  return true;
}

// What was under way when a channel was closed is not looked at.
static bool closed[4000];

static struct frame receive_any(void) {
  bytes_take(&received, spent);
  spent = 0;
  struct frame frame;
  while (bytes_count(&received) < HEADER_BYTES) CHECK(read_more());
  CHECK(decode_header(bytes_front(&received), &frame.header) && frame.header.length <= AGENT_PAYLOAD_MAX);
  while (bytes_count(&received) < HEADER_BYTES + frame.header.length) CHECK(read_more());
  frame.payload = bytes_front(&received) + HEADER_BYTES;
  spent = HEADER_BYTES + frame.header.length;
  return frame;
}


struct frame host_receive(void) {
  for (;;) {
    struct frame frame = receive_any();
    if (frame.header.channel >= sizeof closed || !closed[frame.header.channel]) return frame;
  }
}

struct frame host_expect(uint8_t type, uint8_t stream, uint32_t channel) {
  struct frame frame = host_receive();
  if (frame.header.type != type || frame.header.stream != stream || frame.header.channel != channel) {
    fprintf(stderr, "frame %u stream %u channel %u, not %u %u %u\n", frame.header.type, frame.header.stream, frame.header.channel, type, stream, channel);
    exit(1);
  }
  return frame;
}

void host_expect_closed(void) {
  while (read_more()) bytes_reset(&received);
  spent = 0;
}

bool host_pending(void) {
  struct pollfd fd = {.fd = wire, .events = POLLIN};
  return bytes_count(&received) > spent || poll(&fd, 1, 0) == 1;
}

struct frame host_greet(void) {
  static const uint8_t nonce[NONCE_BYTES] = {9, 8, 7, 6, 5, 4, 3, 2, 1};
  struct bytes out = {0};
  host_connect();
  bytes_append(&out, MARKER, MARKER_BYTES);
  put_header(&out, 20, FRAME_HELLO, 0, 0);
  put_u32(&out, VERSION);
  bytes_append(&out, nonce, NONCE_BYTES);
  host_send(&out);
  bytes_reset(&out);
  while (bytes_count(&received) < MARKER_BYTES) CHECK(read_more());
  CHECK(memcmp(bytes_front(&received), MARKER, MARKER_BYTES) == 0);
  bytes_take(&received, MARKER_BYTES);
  struct frame hello = host_expect(FRAME_HELLO, 0, 0);
  CHECK(get(hello.payload, 4) == VERSION && memcmp(hello.payload + 4, nonce, NONCE_BYTES) == 0 && hello.payload[20] == 0);
  CHECK(hello.header.length == 29 + get(hello.payload + 21, 4) * 57);
  return hello;
}

static void put_text(struct bytes *out, const char *text) {
  put_u32(out, (uint32_t)strlen(text));
  bytes_append(out, text, strlen(text));
}

void host_exec(uint32_t channel, struct program p) {
  struct bytes out = {0};
  uint32_t argc = 0;
  while (argc < 8 && p.argv[argc]) argc++;
  put_header(&out, 0, FRAME_EXEC, 0, channel);
  put_u32(&out, p.flags | (p.script ? EXEC_SCRIPT : 0));
  put_u32(&out, p.window ? p.window : 262144);
  put_u16(&out, 24);
  put_u16(&out, 80);
  put_u8(&out, p.resource > 0);
  if (p.resource > 0) {
    put_u8(&out, (uint8_t)p.resource);
    put_u64(&out, p.limit);
    put_u64(&out, p.limit);
  }
  put_u32(&out, argc);
  for (uint32_t i = 0; i < argc; i++) put_text(&out, p.argv[i]);
  put_u32(&out, 2);
  put_text(&out, "PATH=/nowhere:/usr/bin:/bin");
  put_text(&out, "MARK=set");
  put_text(&out, p.cwd ? p.cwd : "");
  if (p.script) put_text(&out, p.script);
  host_end_frame(&out);
  host_send(&out);
  bytes_reset(&out);
}

void host_end_frame(struct bytes *out) {
  if (out->failed) return;
  uint32_t length = (uint32_t)(bytes_count(out) - HEADER_BYTES);
  for (int i = 0; i < 4; i++) bytes_front(out)[i] = (uint8_t)(length >> 8 * i);
}

void host_data(uint32_t channel, uint64_t offset, const void *bytes, size_t length) {
  struct bytes out = {0};
  put_data_head(&out, channel, 0, offset, (uint32_t)length);
  bytes_append(&out, bytes, length);
  host_send(&out);
  bytes_reset(&out);
}

void host_eof(uint32_t channel, uint64_t total) {
  struct bytes out = {0};
  put_eof(&out, channel, 0, total, 0);
  host_send(&out);
  bytes_reset(&out);
}

void host_ack(uint32_t channel, uint8_t stream, uint64_t total) {
  struct bytes out = {0};
  put_header(&out, 8, FRAME_ACK, stream, channel);
  put_u64(&out, total);
  host_send(&out);
  bytes_reset(&out);
}

void host_signal(uint32_t channel, uint8_t signal, uint8_t target) {
  struct bytes out = {0};
  put_header(&out, 2, FRAME_SIGNAL, 0, channel);
  put_u8(&out, signal);
  put_u8(&out, target);
  host_send(&out);
  bytes_reset(&out);
}

void host_bare(uint8_t type, uint8_t stream, uint32_t channel) {
  struct bytes out = {0};
  put_header(&out, 0, type, stream, channel);
  if (type == FRAME_CLOSE) closed[channel] = true;
  host_send(&out);
  bytes_reset(&out);
}

uint64_t get(const uint8_t *bytes, int count) {
  uint64_t value = 0;
  for (int i = count - 1; i >= 0; i--) value = value << 8 | bytes[i];
  return value;
}

struct ending host_run_to_end(uint32_t channel) {
  struct ending ending = {0};
  for (bool exited = false, ended[2] = {0}; !exited || (ending.kind != NOT_STARTED && !(ended[0] && ended[1]));) {
    struct frame frame = host_receive();
    int stream = frame.header.stream - 1;
    CHECK(frame.header.channel == channel);
    switch (frame.header.type) {
      case FRAME_OPENED:
      case FRAME_ACK:
        break;
      case FRAME_DATA:
        CHECK(stream >= 0 && !ended[stream] && get(frame.payload, 8) == bytes_count(&ending.out[stream]));
        bytes_append(&ending.out[stream], frame.payload + 8, frame.header.length - 8);
        host_ack(channel, frame.header.stream, bytes_count(&ending.out[stream]));
        break;
      case FRAME_EOF:
        CHECK(stream >= 0 && !ended[stream] && get(frame.payload, 8) == bytes_count(&ending.out[stream]));
        ended[stream] = true;
        ending.dropped[stream] = get(frame.payload + 8, 8);
        break;
      case FRAME_EXIT:
        CHECK(!exited);
        exited = true;
        ending.kind = frame.payload[0];
        ending.code = (int32_t)get(frame.payload + 1, 4);
        memcpy(ending.words, frame.payload + 33, frame.header.length - 33);
        break;
      default:
        CHECK(!"a frame that does not belong here");
    }
  }
  host_bare(FRAME_CLOSE, 0, channel);
  return ending;
}

void ending_free(struct ending *ending) {
  bytes_reset(&ending->out[0]);
  bytes_reset(&ending->out[1]);
}

bool ending_wrote(const struct ending *ending, int stream, const char *text) {
  const struct bytes *out = &ending->out[stream - 1];
  return bytes_count(out) == strlen(text) && (!*text || memcmp(bytes_front(out), text, strlen(text)) == 0);
}
