#define _GNU_SOURCE
#include "content.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "chain.h"
#include "layer-request.h"
#include "tell.h"

enum { HOLE_LEAST = 64 << 10, EXTENTS_MAX = 65536 };

struct content {
  int fd;
  uint32_t index, extents;
  int64_t size;
  struct span path;
};

// ENXIO: a socket, or a fifo's like; EXDEV: something is mounted there.
static bool missing(int error) { return chain_vanished(error) || error == ENXIO || error == EXDEV; }

static int open_below(const char *name, uint64_t flags) {
  static int top = -1;
  if (top < 0) top = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  struct open_how how = {.flags = flags | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
  return (int)syscall(SYS_openat2, top, name, &how, sizeof how);
}

// -1: not there, or no regular file.
static int open_file(const char *name, struct span path, struct stat *st) {
  // Looked at before it is opened: opening a device can do things.
  int place = open_below(name, O_PATH);
  if (place >= 0) {
    bool regular = fstat(place, st) == 0 && S_ISREG(st->st_mode);
    close(place);
    if (!regular) return -1;
    place = open_below(name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOATIME);
  }
  if (place < 0) {
    if (missing(errno)) return -1;
    wire_fail(errno, "open a file", path);
  }
  if (fstat(place, st) == 0 && S_ISREG(st->st_mode)) return place;
  close(place);
  return -1;
}

// False when the file ended early.
static bool tell_data(struct content *c, int64_t from, int64_t to) {
  c->extents++;
  while (from < to) {
    size_t most = to - from < WIRE_DATA_MAX ? (size_t)(to - from) : WIRE_DATA_MAX;
    wire_begin(TELL_DATA, 4 + most);
    wire_put(c->index, 4);
    ssize_t length = pread(c->fd, wire_room(), most, from);
    if (length <= 0) {
      int error = errno;
      wire_cancel();
      if (length < 0) wire_fail(error, "read a file", c->path);
      return false;
    }
    wire_filled((size_t)length);
    from += length;
  }
  return true;
}

// Where the next hole worth telling begins after the data at `from`; short ones before it are read as the zeros they are.
static int64_t end_of_data(const struct content *c, int64_t from) {
  for (;;) {
    int64_t end = lseek(c->fd, from, SEEK_HOLE);
    if (end < 0 || end >= c->size) return c->size;
    int64_t next = lseek(c->fd, end, SEEK_DATA);
    int64_t hole_end = next < 0 || next > c->size ? c->size : next;
    if (hole_end - end >= HOLE_LEAST) return end;
    if (hole_end == c->size) return c->size;
    from = hole_end;
  }
}

static void tell_extents(struct content *c) {
  for (int64_t at = 0; at < c->size;) {
    int64_t data = c->size > HOLE_LEAST ? lseek(c->fd, at, SEEK_DATA) : at;
    if (data < 0 && errno != ENXIO) wire_fail(errno, "look for data", c->path);
    if (data < 0 || data > c->size) data = c->size;
    if (c->extents >= EXTENTS_MAX - 1) wire_fail(EFBIG, "a file may have 65,536 extents", c->path);
    if (data - at >= HOLE_LEAST) {
      c->extents++;
      tell_hole(c->index, (uint64_t)(data - at));
      at = data;
    }
    if (at == c->size) return;
    int64_t end = c->size > HOLE_LEAST ? end_of_data(c, data) : c->size;
    if (!tell_data(c, at, end)) return;
    at = end;
  }
}

static void tell_file(uint32_t index, struct span path) {
  char name[LAYER_PATH_MAX + 1];
  memcpy(name, path.bytes, path.length);
  name[path.length] = 0;
  struct stat st;
  struct content c = {.fd = open_file(name, path, &st), .index = index, .path = path};
  if (c.fd < 0) return tell_missing(index);
  // Pages that are mapped and dirty become clean and write-protected: a store from now on takes a fault, which sets the file's times. Before, it might not.
  // Without that, a program that keeps a file mapped could change it for ever without a trace in its stamp.
  const unsigned all = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  if (st.st_size > 0 && sync_file_range(c.fd, 0, 0, all) != 0) wire_fail(errno, "write dirty pages out", path);
  c.size = st.st_size;
  tell_extents(&c);
  if (fstat(c.fd, &st) != 0) wire_fail(errno, "look at a file", path);
  close(c.fd);
  tell_end(index, &st);
}

void content_tell(struct span paths, uint32_t *index) {
  struct layer_reader r = layer_read(paths);
  for (struct span path; layer_next_path(&r, &path);) tell_file((*index)++, path);
  if (r.bad) wire_fail(EPROTO, "paths to read", no_path());
}
