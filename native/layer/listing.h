// What a walk saw, kept for the next one: 64 bytes and the name for each path. The entries of one folder are side by side, in the order of their names.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

enum { ENTRIES_MAX = 2000000 };
static const uint32_t NONE = 0xffffffff;

struct item {
  uint64_t inode, size;
  int64_t mtime_ns, ctime_ns;
  uint32_t uid, gid, links;
  uint32_t name;    // in `names`
  uint32_t folder;  // of a directory that was entered, else NONE
  uint16_t mode;    // as st_mode
  uint8_t name_length;
  // Changed so shortly before it was looked at that another change may have left the same times.
  bool recent : 1;
  // Vanished before it could be told of: nobody has heard of it.
  bool hidden : 1;
  bool whiteout : 1;
};

// Folders are in tree order.
struct folder {
  uint32_t item, parent;  // parent NONE: the root, which is item 0
  uint32_t first, count;
  uint32_t depth;  // components of its path
  bool incomplete;  // its names must be read again in any case
};

struct listing {
  struct item *items;
  struct folder *folders;
  uint8_t *names;
  uint32_t item_count, folder_count;
  uint32_t item_room, folder_room;
  uint32_t name_bytes, name_room;
};

// Each ends the session when there is no memory or the limit is passed.
uint32_t listing_add_item(struct listing *l, const void *name, size_t length);
uint32_t listing_add_folder(struct listing *l, uint32_t item, uint32_t parent);
void listing_free(struct listing *l);
// With a NUL behind it.
static inline const char *item_name(const struct listing *l, const struct item *item) { return (const char *)l->names + item->name; }

// Takes what fstatat(2) says. `before_ns` is a time before that call.
void item_set(struct item *item, const struct stat *st, int64_t before_ns);
bool item_same(const struct item *item, const struct stat *st);
int64_t clock_ns(void);
