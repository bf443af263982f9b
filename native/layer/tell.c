#include "tell.h"

enum { FIXED_BYTES = 1 + 47 + 2 + 2 + 2 };

void tell_ready(void) {
  wire_begin(TELL_READY, 4);
  wire_put(WIRE_VERSION, 4);
}

void tell_present(const struct told *told, const struct attributes *attributes, bool change) {
  wire_batch(change ? TELL_CHANGED : TELL_ENTRIES, FIXED_BYTES + told->path.length + told->target.length + attributes->length);
  if (change) wire_put(CHANGED_PRESENT, 1);
  wire_put(told->kind, 1);
  wire_put(told->mode, 2);
  wire_put(told->uid, 4);
  wire_put(told->gid, 4);
  wire_put(told->size, 8);
  wire_put((uint64_t)told->mtime_ns, 8);
  wire_put((uint64_t)told->ctime_ns, 8);
  wire_put(told->inode, 8);
  wire_put(told->links, 4);
  wire_put_span(told->path.bytes, told->path.length);
  wire_put_span(told->target.bytes, told->target.length);
  wire_put(attributes->count, 2);
  wire_put_bytes(attributes->bytes, attributes->length);
}

void tell_removed(struct span path) {
  wire_batch(TELL_CHANGED, 3 + path.length);
  wire_put(CHANGED_REMOVED, 1);
  wire_put_span(path.bytes, path.length);
}

void tell_hole(uint32_t index, uint64_t length) {
  wire_begin(TELL_HOLE, 12);
  wire_put(index, 4);
  wire_put(length, 8);
}

static void put_time(struct timespec t) { wire_put((uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec, 8); }

void tell_end(uint32_t index, const struct stat *st) {
  wire_begin(TELL_END, 36);
  wire_put(index, 4);
  wire_put(st->st_ino, 8);
  wire_put((uint64_t)st->st_size, 8);
  put_time(st->st_mtim);
  put_time(st->st_ctim);
}

void tell_missing(uint32_t index) {
  wire_begin(TELL_MISSING, 4);
  wire_put(index, 4);
}

void tell_done(void) { wire_begin(TELL_DONE, 0); }
