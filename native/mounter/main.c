// The host's resident helper for mounts; its protocol is in request.h.
//
// One process does the mount work one request after the other, because a mount namespace and its attach points are its state; each takes well under a
// millisecond. What waits for disks (images, removing trees, sealing) runs in a forked child, and the end of a killed process is awaited by poll: neither
// holds up an ATTACH. Forks rather than threads, because setns(2) is refused to a process with threads.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "attach.h"
#include "daemon-root.h"
#include "dialer.h"
#include "layers.h"
#include "listen.h"
#include "outcome.h"
#include "overlay.h"
#include "process.h"
#include "request.h"
#include "run.h"
#include "shift.h"
#include "storage.h"
#include "user-namespace.h"

enum { PENDING_MAX = 256, SEALED_MAX = 256 };

// A request whose answer comes later. `fd` becomes readable then: the pipe of a worker, or a pidfd.
static struct pending {
  uint32_t id;
  uint8_t op;
  int fd;
  pid_t child;          // 0: a KILL
  int64_t deadline_ms;  // of a KILL or RUN
  int memory;           // of a SEAL, else -1
} pending[PENDING_MAX];
static int pending_count;

static int sealed[SEALED_MAX], sealed_count;

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void put(uint8_t **at, uint64_t value, int count) {
  for (int i = 0; i < count; i++, value >>= 8) *(*at)++ = (uint8_t)value;
}

static void answer(uint32_t id, const struct outcome *outcome) {
  uint8_t frame[512], *at = frame;
  char message[256] = "";
  if (outcome->error) snprintf(message, sizeof message, "%s%s%s", outcome->step, *outcome->words ? ": " : "", outcome->words);
  size_t length = strlen(message);
  put(&at, 18 + length, 4);
  put(&at, id, 4);
  put(&at, (uint32_t)outcome->error, 4);
  put(&at, outcome->value, 8);
  put(&at, length, 2);
  memcpy(at, message, length);
  // Below PIPE_BUF, so whole or not at all (pipe(7)); without a reader there is nothing left to do.
  size_t size = (size_t)(at - frame) + length;
  ssize_t written;
  do written = write(1, frame, size);
  while (written < 0 && errno == EINTR);
  if (written != (ssize_t)size) exit(0);
}

// What a child sends home: the literal is at the same address there, for it is a fork of us.
static void run_child(int pipe_end, const struct request *request, int memory) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (request->op == OP_UNMOUNT) layers_await_ending();
  struct outcome outcome = request->op == OP_MOUNT_IMAGE    ? storage_mount_image(request)
                           : request->op == OP_UNMOUNT      ? storage_unmount(request)
                           : request->op == OP_SEAL         ? storage_seal(request, memory)
                           : request->op == OP_SHIFT        ? shift_image(request)
                           : request->op == OP_NARROW_UPPER ? storage_narrow_upper(request)
                           : request->op == OP_SWEEP_UPPER  ? storage_sweep_upper(request)
                                                            : storage_reset_upper(request);
  _exit(write(pipe_end, &outcome, sizeof outcome) == sizeof outcome ? 0 : 1);
}

static struct outcome start_child(const struct request *request) {
  int ends[2], memory = -1;
  if (request->op == OP_SEAL) {
    if (sealed_count == SEALED_MAX) return refused(EMFILE, "too many sealed files");
    memory = storage_new_memory();
    if (memory < 0) return failed("memfd_create");
  }
  pid_t child = -1;
  if (pipe2(ends, O_CLOEXEC) == 0) {
    child = fork();
    if (child == 0) run_child(ends[1], request, memory);
    close(ends[1]);
    if (child < 0) close(ends[0]);
  }
  if (child < 0) {
    struct outcome outcome = failed("fork");
    if (memory >= 0) close(memory);
    return outcome;
  }
  if (memory >= 0) sealed[sealed_count++] = memory;
  pending[pending_count++] = (struct pending){.id = request->id, .op = request->op, .fd = ends[0], .child = child, .memory = memory};
  return done(0);
}

static struct outcome unseal(int memory) {
  for (int i = 0; i < sealed_count; i++) {
    if (sealed[i] != memory) continue;
    close(memory);
    sealed[i] = sealed[--sealed_count];
    return done(0);
  }
  return refused(EBADF, "not a sealed file");
}

static void finish_child(const struct pending *p) {
  struct outcome outcome;
  // A child that died says nothing.
  if (read(p->fd, &outcome, sizeof outcome) != sizeof outcome) outcome = refused(EIO, "the worker died");
  waitpid(p->child, NULL, 0);
  if (outcome.error && p->memory >= 0) unseal(p->memory);
  answer(p->id, &outcome);
}

static struct outcome start_kill(const struct request *request, bool *later) {
  int pidfd = process_open_pidfd(request->pid, request->start);
  if (pidfd < 0) return errno == ESRCH ? done(1) : failed("pidfd_open");
  if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) != 0 && errno != ESRCH) {
    struct outcome outcome = failed("pidfd_send_signal");
    close(pidfd);
    return outcome;
  }
  *later = true;
  pending[pending_count++] = (struct pending){.id = request->id, .op = OP_KILL, .fd = pidfd, .deadline_ms = now_ms() + request->number, .memory = -1};
  return done(0);
}

static struct outcome start_run(const struct request *request) {
  pid_t child;
  int pidfd;
  struct outcome outcome = run_start(request, &child, &pidfd);
  if (outcome.error) return outcome;
  int64_t deadline_ms = now_ms() + request->number;
  pending[pending_count++] = (struct pending){.id = request->id, .op = OP_RUN, .fd = pidfd, .child = child, .deadline_ms = deadline_ms, .memory = -1};
  return outcome;
}

static void finish_run(const struct pending *p, bool ended) {
  if (!ended) kill(p->child, SIGKILL);
  struct outcome outcome = run_finish(p->child);
  if (!ended) outcome = refused(ETIMEDOUT, "run");
  answer(p->id, &outcome);
}

static void serve(const struct request *request) {
  struct outcome outcome;
  bool later = false;
  if (request->op == OP_UNMOUNT) layers_end_closed();
  switch (request->op) {
    case OP_PROBE:
      outcome = overlay_probe(request->path);
      break;
    case OP_PREPARE:
      outcome = user_namespace(request->uid_base) < 0 ? failed("user namespace") : done(0);
      break;
    case OP_ATTACH:
      outcome = attach_root(request);
      break;
    case OP_MOUNT_ROOT:
      outcome = daemon_root_mount(request);
      break;
    case OP_UNMOUNT_ROOT:
      outcome = daemon_root_unmount(request);
      break;
    case OP_UNSEAL:
      outcome = unseal((int)request->number);
      break;
    case OP_KILL:
      outcome = pending_count == PENDING_MAX ? refused(EAGAIN, "too many at once") : start_kill(request, &later);
      break;
    default:
      outcome = pending_count == PENDING_MAX ? refused(EAGAIN, "too many at once") : request->op == OP_RUN ? start_run(request) : start_child(request);
      later = outcome.error == 0;
  }
  if (!later) answer(request->id, &outcome);
}

// Serves every whole request in the buffer. False when the daemon has lost its place.
static bool serve_requests(uint8_t *buffer, size_t *held) {
  static struct request request;
  size_t at = 0;
  while (*held - at >= 4) {
    uint32_t length = (uint32_t)buffer[at] | (uint32_t)buffer[at + 1] << 8 | (uint32_t)buffer[at + 2] << 16 | (uint32_t)buffer[at + 3] << 24;
    if (length < REQUEST_MIN || length > REQUEST_MAX) return false;
    if (*held - at - 4 < length) break;
    if (!request_decode(buffer + at + 4, length, &request)) return false;
    serve(&request);
    at += 4 + length;
  }
  *held -= at;
  memmove(buffer, buffer + at, *held);
  return true;
}

static bool receive(void) {
  static uint8_t buffer[4 + REQUEST_MAX];
  static size_t held;
  ssize_t length = read(0, buffer + held, sizeof buffer - held);
  if (length < 0 && errno == EINTR) return true;
  if (length <= 0) return false;
  held += (size_t)length;
  if (serve_requests(buffer, &held)) return true;
  dprintf(2, "mounter: a request that is none; giving up\n");
  return false;
}

// True when the request is answered and its slot free.
static bool settle(const struct pending *p, bool readable) {
  static const struct outcome ended = {0}, timed_out = {.error = ETIMEDOUT, .step = "wait for the end"};
  bool bounded = p->op == OP_KILL || p->op == OP_RUN;
  if (!readable && (!bounded || now_ms() < p->deadline_ms)) return false;
  if (p->op == OP_RUN) finish_run(p, readable);
  else if (p->child) finish_child(p);
  else answer(p->id, readable ? &ended : &timed_out);
  close(p->fd);
  return true;
}

static int next_timeout_ms(void) {
  int64_t next = -1, now = now_ms();
  for (int i = 0; i < pending_count; i++) {
    if (pending[i].op != OP_KILL && pending[i].op != OP_RUN) continue;
    int64_t left = pending[i].deadline_ms > now ? pending[i].deadline_ms - now : 0;
    if (next < 0 || left < next) next = left;
  }
  return next > 1 << 30 ? 1 << 30 : (int)next;
}

static int run(const char *layer_socket) {
  // It ends when the daemon lets go of it, and not a moment before: a signal to the whole group (Ctrl-C, a service manager) leaves the daemon to clean up, with its help.
  signal(SIGINT, SIG_IGN);
  signal(SIGTERM, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  struct outcome prepared = run_prepare();
  if (!prepared.error) prepared = overlay_prepare();
  if (prepared.error) {
    dprintf(2, "mounter: %s: %s\n", prepared.step, strerror(prepared.error));
    return 1;
  }
  int error = layer_socket ? layers_listen(layer_socket) : 0;
  if (error) {
    dprintf(2, "mounter: %s: %s\n", layer_socket, strerror(error));
    return 1;
  }
  static struct pollfd fds[1 + PENDING_MAX + LAYER_SLOTS];
  for (;;) {
    fds[0] = (struct pollfd){.fd = 0, .events = POLLIN};
    for (int i = 0; i < pending_count; i++) fds[1 + i] = (struct pollfd){.fd = pending[i].fd, .events = POLLIN};
    struct pollfd *layers = fds + 1 + pending_count;
    int layer_slots = layers_poll(layers);
    if (poll(fds, (nfds_t)(1 + pending_count + layer_slots), next_timeout_ms()) < 0) continue;
    layers_serve(layers, layer_slots);
    // From the last to the first: the last takes the place of one that is done.
    for (int i = pending_count - 1; i >= 0; i--) {
      if (settle(&pending[i], fds[1 + i].revents != 0)) pending[i] = pending[--pending_count];
    }
    if (fds[0].revents && !receive()) return 0;
  }
}

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  if (argc >= 4 && strcmp(argv[1], "listen") == 0) return listen_and_exec(argv[2], argv + 3);
  if (argc == 2 && strcmp(argv[1], "dial") == 0) return dialer_run();
  if (argc == 1) return run(NULL);
  if (argc == 3 && strcmp(argv[1], "serve") == 0) return run(argv[2]);
  dprintf(2, "usage: mounter [serve <socket>]           requests on stdin, answers on stdout; layer workers for who connects to the socket\n       mounter listen <socket> <command...>   the listening socket becomes the command's descriptor 3\n       mounter dial   connections into sandboxes, asked for on stdin and handed over on descriptor 3\n");
  return 2;
}
