#define _GNU_SOURCE
#include "listing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "wire.h"

// Kernels before 6.13 stamp files with the time of the last tick, which may be 10 ms old; five times that is taken.
static const int64_t RECENT_NS = 50000000;

static void *grow(void *array, uint32_t *room, uint64_t least, size_t size) {
  uint64_t larger = *room ? *room : 1024;
  while (larger < least) larger += larger / 2;
  if (larger >= NONE) wire_fail(EOVERFLOW, "too many names for one layer", no_path());
  array = realloc(array, (size_t)larger * size);
  if (!array) wire_fail(ENOMEM, "remember the layer", no_path());
  *room = (uint32_t)larger;
  return array;
}

uint32_t listing_add_item(struct listing *l, const void *name, size_t length) {
  if (l->item_count == ENTRIES_MAX) wire_fail(EOVERFLOW, "a layer may have 2,000,000 entries", no_path());
  if (l->item_count == l->item_room) l->items = grow(l->items, &l->item_room, (uint64_t)l->item_count + 1, sizeof *l->items);
  if (l->name_room - l->name_bytes < length + 1) l->names = grow(l->names, &l->name_room, (uint64_t)l->name_bytes + length + 1, 1);
  l->items[l->item_count] = (struct item){.name = l->name_bytes, .name_length = (uint8_t)length, .folder = NONE};
  if (length) memcpy(l->names + l->name_bytes, name, length);
  l->names[l->name_bytes + length] = 0;
  l->name_bytes += (uint32_t)length + 1;
  return l->item_count++;
}

uint32_t listing_add_folder(struct listing *l, uint32_t item, uint32_t parent) {
  if (l->folder_count == l->folder_room) l->folders = grow(l->folders, &l->folder_room, (uint64_t)l->folder_count + 1, sizeof *l->folders);
  uint32_t depth = parent == NONE ? 0 : l->folders[parent].depth + 1;
  l->folders[l->folder_count] = (struct folder){.item = item, .parent = parent, .first = l->item_count, .depth = depth};
  l->items[item].folder = l->folder_count;
  return l->folder_count++;
}

void listing_free(struct listing *l) {
  free(l->items);
  free(l->folders);
  free(l->names);
  *l = (struct listing){0};
}

static int64_t nanoseconds(struct timespec t) { return (int64_t)((uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec); }

int64_t clock_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return nanoseconds(now);
}

void item_set(struct item *item, const struct stat *st, int64_t before_ns) {
  item->inode = st->st_ino;
  item->size = (uint64_t)st->st_size;
  item->mtime_ns = nanoseconds(st->st_mtim);
  item->ctime_ns = nanoseconds(st->st_ctim);
  item->uid = st->st_uid;
  item->gid = st->st_gid;
  item->links = (uint32_t)st->st_nlink;
  item->mode = (uint16_t)st->st_mode;
  item->whiteout = S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
  item->recent = item->ctime_ns > before_ns - RECENT_NS;
}

bool item_same(const struct item *item, const struct stat *st) {
  return item->ctime_ns == nanoseconds(st->st_ctim) && item->mtime_ns == nanoseconds(st->st_mtim) && item->inode == st->st_ino && item->size == (uint64_t)st->st_size &&
         item->mode == (uint16_t)st->st_mode && item->uid == st->st_uid && item->gid == st->st_gid && item->links == (uint32_t)st->st_nlink;
}
