// The first process of every sandbox; see docs/agent-protocol.md. One thread around one poll: nothing here waits for the host or for a program.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "channel.h"
#include "exec.h"
#include "link.h"
#include "process.h"
#include "vm-init.h"

enum { LISTENER = 3, LINK_SLOTS = 2, SLOTS = 1 + LINK_SLOTS + CHANNELS_MAX * CHANNEL_SLOTS };

// Queues and writes until everything is out or the host takes no more. True while an end of output waits for the exit it can travel with.
static bool send_frames(void) {
  struct bytes *out;
  struct pump pump;
  do {
    out = link_out();
    if (!out) return false;
    pump = channels_pump(out);
  } while (link_flush() && pump.more);
  return pump.waiting;
}

static void serve(int watch) {
  static struct pollfd fds[SLOTS];
  const struct timespec now = {0}, moment = {.tv_nsec = 1000000};
  bool waiting = false;
  for (;;) {
    fds[0] = (struct pollfd){.fd = watch, .events = POLLIN};
    int links = link_poll(fds + 1);
    int channels = channels_poll(fds + 1 + links);
    const struct timespec *most = link_unread() ? &now : waiting ? &moment : NULL;
    if (ppoll(fds, (nfds_t)(1 + links + channels), most, NULL) < 0) continue;
    // Reaping first, so that output and exit leave together. The link last: it adds and removes channels, and `fds` is in their order.
    if (fds[0].revents) process_reap(watch);
    channels_serve(fds + 1 + links, channels);
    link_serve(fds + 1, links);
    waiting = send_frames();
  }
}

// What the runtime gave us as standard streams is the host's: a log file, a pipe. Nobody in here needs it any more.
static bool let_go_of_streams(void) {
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return false;
  for (int fd = 0; fd <= 2; fd++) {
    if (dup2(null, fd) < 0) return false;
  }
  return null <= 2 || close(null) == 0;
}

int main(int argc, char **argv) {
  bool vm = strcmp(argv[0], "/init") == 0 || (argc > 1 && strcmp(argv[1], "vm") == 0);
  if (!vm && (argc != 2 || strcmp(argv[1], "container") != 0)) {
    static const char usage[] = "usage: agent container    with a listening unix socket as descriptor 3\n       agent vm           as the init of a vm\n";
    return write(2, usage, sizeof usage - 1) < 0 ? 1 : 2;
  }
  umask(0);
  int port = vm ? vm_init() : -1;
  if (vm) link_port(port);
  else if (fcntl(LISTENER, F_SETFD, FD_CLOEXEC) != 0 || fcntl(LISTENER, F_SETFL, O_NONBLOCK) != 0) return 1;
  else if (!let_go_of_streams()) return 1;
  else link_listen(LISTENER);
  // Programs of the same user must not look into the agent.
  prctl(PR_SET_DUMPABLE, 0);
  if (chdir("/") != 0) return 1;
  exec_prepare();
  int watch = process_watch();
  if (watch < 0) return 1;
  serve(watch);
}
