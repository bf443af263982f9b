// The SFTP server's way from packets to answers, with the real files of an empty folder that is the root while it runs (which needs root; without, nothing is tried).
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../sftp/requests.h"
#include "../tree/remove-tree.h"

enum { MOST_BYTES = 64 << 20 };

static struct sftp_session session;
static int outside = -1, before = -1, inside = -1, last = -1;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

// A mount of its own, bounded, that goes with the process.
static void prepare(void) {
  char folder[] = "/tmp/sftp-fuzz-XXXXXX", options[32];
  snprintf(options, sizeof options, "size=%d,mode=755", MOST_BYTES);
  outside = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  before = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
  // What was tried last, for after a crash: nothing can be written to the outside then.
  last = open("build/fuzz/sftp-last", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (outside < 0 || before < 0 || last < 0 || !mkdtemp(folder)) fail("folder");
  if (mount("tmpfs", folder, "tmpfs", MS_NODEV, options) != 0) fail("mount");
  inside = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (inside < 0 || umount2(folder, MNT_DETACH) != 0 || rmdir(folder) != 0) fail("hide the folder");
}

static void begin(void) {
  if (fchdir(inside) != 0 || chroot(".") != 0) fail("enter");
  mkdir("d", 0755);
  int fd = open("f", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0 || write(fd, "content", 7) != 7 || close(fd) != 0) fail("file");
  if (symlink("f", "l") != 0) fail("link");
}

static void end(void) {
  uint64_t removed = 0;
  sftp_handles_close(&session.handles);
  int fd = dup(inside);
  if (fd < 0 || remove_tree_contents(fd, &removed) != 0) fail("clean up");
  if (fchdir(outside) != 0 || chroot(".") != 0 || fchdir(before) != 0) fail("leave");
}

// Every answer is one whole packet within its bound.
static void check_output(void) {
  for (size_t at = 0; at < session.out.used;) {
    struct sftp_reader r = {session.out.bytes + at, session.out.bytes + session.out.used, false};
    uint32_t length = sftp_read_u32(&r);
    if (r.bad || length < 5 || length > SFTP_PACKET_MAX || length > (size_t)(r.end - r.at)) abort();
    at += SFTP_LENGTH_BYTES + length;
    if (at != session.out.used) abort();
  }
  session.out.used = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const uint8_t init[] = {SFTP_INIT, 0, 0, 0, 3};
  if (geteuid() != 0) return 0;
  if (inside < 0) prepare();
  if (pwrite(last, data, size, 0) != (ssize_t)size || ftruncate(last, (off_t)size) != 0) fail("note");
  session.greeted = false;
  session.handles.serial = 0;
  session.home = "/";
  begin();
  sftp_take(&session, init, sizeof init);
  session.out.used = 0;
  struct sftp_reader r = {data, data + size, false};
  for (;;) {
    // Behind two bytes of length; a copy, so that a read past its end is seen.
    uint32_t length = sftp_read_u8(&r);
    length = length << 8 | sftp_read_u8(&r);
    if (r.bad || length > (size_t)(r.end - r.at)) break;
    uint8_t *packet = malloc(length ? length : 1);
    if (!packet) abort();
    memcpy(packet, r.at, length);
    bool good = sftp_take(&session, packet, length);
    free(packet);
    check_output();
    if (!good) break;
    r.at += length;
  }
  end();
  return 0;
}
