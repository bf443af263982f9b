#define _GNU_SOURCE
#include "link.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel.h"
#include "codec.h"
#include "dispatch.h"
#include "frames.h"
#include "root.h"

enum { CONGESTED_BYTES = 256 << 10, READS_PER_TURN = 16 };

static struct {
  int listener, fd;
  // The port reports a hang-up for as long as the host is away, which poll would return at once for ever. Edge-triggered through an epoll descriptor
  // it is reported once.
  int edges;
  enum { ABSENT, HUNTING, GREETING, READY } state;
  bool unread;
  unsigned generation;
  struct frames frames;
  struct bytes out;
} wire = {.listener = -1, .fd = -1, .edges = -1};

void link_listen(int listener) { wire.listener = listener; }

void link_port(int port) {
  wire.fd = port;
  wire.state = HUNTING;
  wire.unread = true;
  wire.edges = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET};
  epoll_ctl(wire.edges, EPOLL_CTL_ADD, port, &event);
}

static void forget_wire(void) {
  frames_reset(&wire.frames);
  bytes_reset(&wire.out);
  wire.unread = false;
  wire.state = wire.edges < 0 ? ABSENT : HUNTING;
}

static void drop(void) {
  if (wire.edges < 0 && wire.fd >= 0) {
    close(wire.fd);
    wire.fd = -1;
  }
  forget_wire();
}

struct bytes *link_out(void) { return wire.state == READY ? &wire.out : NULL; }
unsigned link_generation(void) { return wire.generation; }

static bool congested(void) { return bytes_count(&wire.out) > CONGESTED_BYTES; }

bool link_unread(void) { return wire.unread && !congested(); }

bool link_flush(void) {
  if (wire.state != READY) return false;
  if (wire.out.failed) {
    drop();
    return false;
  }
  while (bytes_count(&wire.out) > 0) {
    ssize_t count = write(wire.fd, bytes_front(&wire.out), bytes_count(&wire.out));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno != EAGAIN) drop();
    if (count <= 0) return false;
    bytes_take(&wire.out, (size_t)count);
  }
  bytes_shrink(&wire.out);
  return true;
}

static bool greet(const struct header *header, uint8_t *payload) {
  struct reader r = {payload, payload + header->length, false};
  uint32_t version = read_u32(&r);
  const uint8_t *nonce = read_bytes(&r, NONCE_BYTES);
  if (header->type != FRAME_HELLO || header->channel != 0 || !reader_done(&r) || version != VERSION) return false;
  wire.state = READY;
  wire.generation++;
  bytes_append(&wire.out, MARKER, MARKER_BYTES);
  put_hello(&wire.out, nonce, root_is_vm(), channels_count());
  channels_rewind(&wire.out);
  put_features(&wire.out, root_is_vm() ? FEATURE_INIT | FEATURE_IPV6 : 0);
  return true;
}

// False when the connection is not worth keeping.
static bool take_frames(void) {
  struct header header;
  uint8_t *payload;
  for (;;) {
    if (congested()) {
      wire.unread = true;
      return true;
    }
    switch (frames_next(&wire.frames, &header, &payload)) {
      case FRAMES_NONE:
        bytes_shrink(&wire.frames.in);
        return true;
      case FRAMES_BROKEN:
        return false;
      case FRAMES_MARKER:
        bytes_reset(&wire.out);
        wire.state = GREETING;
        break;
      case FRAMES_FRAME:
        if (!(wire.state == GREETING ? greet(&header, payload) : dispatch(&header, payload, &wire.out))) return false;
        break;
    }
  }
}

static void receive(void) {
  if (!take_frames()) return drop();
  for (int i = 0; i < READS_PER_TURN; i++) {
    wire.unread = true;
    if (congested()) return;
    size_t wanted = frames_wanted(&wire.frames);
    uint8_t *into = bytes_reserve(&wire.frames.in, wanted);
    if (!into) return drop();
    ssize_t count = read(wire.fd, into, wanted);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) {
      wire.unread = false;
      return;
    }
    // A port also reads as hung up while the kernel has not heard yet that the host is there, and the host's first bytes can be quicker than that news (they
    // are, after a restore). So a hang-up is believed only when it cuts a frame short; between frames a new connection shows by its marker.
    if (count == 0 && wire.edges >= 0 && bytes_count(&wire.frames.in) == wire.frames.spent) {
      wire.unread = false;
      return;
    }
    if (count <= 0) return drop();
    bytes_filled(&wire.frames.in, (size_t)count);
    if (!take_frames()) return drop();
  }
}

static void accept_newest(void) {
  for (;;) {
    int fd = accept4(wire.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    drop();
    wire.fd = fd;
    wire.state = HUNTING;
    wire.unread = true;
  }
}

int link_poll(struct pollfd *fds) {
  if (wire.edges >= 0) {
    fds[0] = (struct pollfd){.fd = wire.edges, .events = POLLIN};
    return 1;
  }
  short events = 0;
  if (!congested()) events |= POLLIN;
  if (bytes_count(&wire.out) > 0) events |= POLLOUT;
  fds[0] = (struct pollfd){.fd = wire.listener, .events = POLLIN};
  fds[1] = (struct pollfd){.fd = wire.fd, .events = events};
  return 2;
}

void link_serve(const struct pollfd *fds, int count) {
  bool ready = wire.unread;
  if (wire.edges >= 0) {
    struct epoll_event event;
    if (fds[0].revents && epoll_wait(wire.edges, &event, 1, 0) > 0) ready = true;
  } else {
    if (fds[0].revents) {
      accept_newest();
      ready |= wire.unread;
    }
    if (count > 1 && fds[1].revents && fds[1].fd == wire.fd) ready = true;
  }
  if (ready && wire.fd >= 0) receive();
}
