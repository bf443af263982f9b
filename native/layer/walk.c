#define _GNU_SOURCE
#include "walk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "attributes.h"
#include "chain.h"
#include "layer-request.h"
#include "scan.h"
#include "tell.h"

enum { NAMES_BUFFER = 64 << 10 };

// The layout getdents64(2) documents.
struct dirent64_raw {
  uint64_t ino;
  int64_t off;
  uint16_t reclen;
  uint8_t type;
  char name[];
};

// One walk: builds `now`. Of what is remembered, `state` says what is still the same.
static struct walk {
  struct listing now;
  const struct listing *old;  // NULL: the first
  const uint8_t *state;
  struct chain chain;   // in `now`
  uint32_t directory;   // the folder that is the current directory, else NONE
  uint8_t path[LAYER_PATH_MAX];
  size_t path_length;
} w;

static struct listing remembered;
static bool remembers;

// The only name of the root that is looked at; empty: all of them.
static char only[LAYER_NAME_MAX + 1];

void walk_only(struct span name) {
  memcpy(only, name.bytes, name.length);
  only[name.length] = 0;
}

static struct span here(void) { return span_of(w.path, w.path_length); }

static size_t push_name(const void *name, size_t length) {
  size_t before = w.path_length, slash = before > 0;
  if (before + slash + length > LAYER_PATH_MAX) wire_fail(ENAMETOOLONG, "a path of a layer may have 4,095 bytes", here());
  if (slash) w.path[w.path_length++] = '/';
  memcpy(w.path + w.path_length, name, length);
  w.path_length += length;
  return before;
}

static int open_folder(uint32_t folder) {
  chain_to(&w.chain, folder);
  int fd = chain_open(&w.chain);
  if (fd < 0 && !chain_vanished(errno)) wire_fail(errno, errno == EXDEV ? "something is mounted in the layer" : "open a folder", here());
  return fd;
}

// --- Names of a folder ---------------------------------------------------------------------------------------------------------------------------

static struct names {
  char *bytes;
  size_t held, room;
  struct name {
    uint64_t key;  // the first 8 bytes, so that most comparisons need no more
    uint32_t at;
    uint8_t length;
  } *list;
  size_t count, list_room;
} names;

static void *larger(void *array, size_t *room, size_t least, size_t size) {
  while (*room < least) *room = *room ? 2 * *room : 4096;
  array = realloc(array, *room * size);
  if (!array) wire_fail(ENOMEM, "read a folder", here());
  return array;
}

static void add_name(const char *name) {
  size_t length = strlen(name);
  if (length == 0 || length > LAYER_NAME_MAX || strchr(name, '/')) wire_fail(EIO, "a name that is none", here());
  // More than this can never be told of.
  if (names.count > ENTRIES_MAX) wire_fail(EOVERFLOW, "a layer may have 2,000,000 entries", here());
  if (names.room - names.held < length + 1) names.bytes = larger(names.bytes, &names.room, names.held + length + 1, 1);
  if (names.count == names.list_room) names.list = larger(names.list, &names.list_room, names.count + 1, sizeof *names.list);
  uint64_t key = 0;
  for (size_t i = 0; i < 8; i++) key = key << 8 | (i < length ? (uint8_t)name[i] : 0);
  names.list[names.count++] = (struct name){key, (uint32_t)names.held, (uint8_t)length};
  memcpy(names.bytes + names.held, name, length + 1);
  names.held += length + 1;
}

static int by_bytes(const void *one, const void *other) {
  const struct name *a = one, *b = other;
  if (a->key != b->key) return a->key < b->key ? -1 : 1;
  return strcmp(names.bytes + a->at, names.bytes + b->at);
}

static void read_names(int fd) {
  static char buffer[NAMES_BUFFER] __attribute__((aligned(8)));
  if (lseek(fd, 0, SEEK_SET) != 0) wire_fail(errno, "read a folder", here());
  for (;;) {
    long length = syscall(SYS_getdents64, fd, buffer, sizeof buffer);
    if (length < 0 && chain_vanished(errno)) break;
    if (length < 0) wire_fail(errno, "read a folder", here());
    if (length == 0) break;
    for (long at = 0; at < length;) {
      const struct dirent64_raw *entry = (const void *)(buffer + at);
      at += entry->reclen;
      if (strcmp(entry->name, ".") != 0 && strcmp(entry->name, "..") != 0) add_name(entry->name);
    }
  }
  if (names.count > 1) qsort(names.list, names.count, sizeof *names.list, by_bytes);
}

// --- Items of a folder ---------------------------------------------------------------------------------------------------------------------------

static int compare_names(const char *a, const char *b) { return strcmp(a, b); }

// A name that is not there any more is left out: the folder's time has changed since it was taken, so the next walk reads it again.
static void look_at(int fd, const char *name, size_t length, int64_t before_ns) {
  struct stat st;
  if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
    if (chain_vanished(errno)) return;
    push_name(name, length);
    wire_fail(errno, "look at an entry", here());
  }
  if (st.st_dev != w.chain.device) {
    push_name(name, length);
    wire_fail(EXDEV, "something is mounted in the layer", here());
  }
  uint32_t at = listing_add_item(&w.now, name, length);  // may move the items
  item_set(&w.now.items[at], &st, before_ns);
}

static void keep(const struct item *was) {
  uint32_t at = listing_add_item(&w.now, item_name(w.old, was), was->name_length);
  uint32_t name = w.now.items[at].name;
  w.now.items[at] = *was;
  w.now.items[at].name = name;
  w.now.items[at].folder = NONE;
}

static void fill_from_names(uint32_t folder, uint32_t old_folder) {
  int64_t before_ns = clock_ns();
  int fd = open_folder(folder);
  if (fd < 0) {
    w.now.folders[folder].incomplete = true;
    return;
  }
  names.held = names.count = 0;
  if (*only && w.now.folders[folder].parent == NONE) add_name(only);
  else read_names(fd);
  uint32_t at = 0, end = 0;
  if (old_folder != NONE) {
    at = w.old->folders[old_folder].first;
    end = at + w.old->folders[old_folder].count;
  }
  for (size_t i = 0; i < names.count; i++) {
    const char *name = names.bytes + names.list[i].at;
    int order = 1;
    while (at < end && (order = compare_names(item_name(w.old, &w.old->items[at]), name)) < 0) at++;
    bool same = at < end && order == 0 && w.state[at] == SCAN_SAME;
    if (same) keep(&w.old->items[at]);
    else look_at(fd, name, names.list[i].length, before_ns);
  }
}

// The folder has not changed, so its names are those from before.
static void fill_from_memory(uint32_t folder, uint32_t old_folder) {
  const struct folder *from = &w.old->folders[old_folder];
  for (uint32_t i = from->first; i < from->first + from->count; i++) {
    const struct item *was = &w.old->items[i];
    if (w.state[i] == SCAN_SAME) {
      keep(was);
      continue;
    }
    int64_t before_ns = clock_ns();
    int fd = open_folder(folder);
    if (fd >= 0) look_at(fd, item_name(w.old, was), was->name_length, before_ns);
    else w.now.folders[folder].incomplete = true;
  }
}

// --- Telling -------------------------------------------------------------------------------------------------------------------------------------

static uint8_t kind_of(const struct item *item) {
  switch (item->mode & S_IFMT) {
    case S_IFDIR: return KIND_DIRECTORY;
    case S_IFREG: return KIND_FILE;
    case S_IFLNK: return KIND_SYMLINK;
    case S_IFIFO: return KIND_FIFO;
    case S_IFSOCK: return KIND_SOCKET;
    default: return item->whiteout ? KIND_WHITEOUT : KIND_DEVICE;
  }
}

// Tells of the item at the current path. False when it has vanished.
static bool tell(const struct item *item, const char *name) {
  static char target[LAYER_PATH_MAX + 1];
  struct attributes attributes;
  int error = attributes_read(name, &attributes);
  if (error && chain_vanished(error)) return false;
  if (error) wire_fail(error, attributes.why, here());
  ssize_t target_length = 0;
  if (S_ISLNK(item->mode)) {
    target_length = readlinkat(AT_FDCWD, name, target, sizeof target);
    if (target_length < 0 && (errno == EINVAL || chain_vanished(errno))) return false;
    if (target_length < 0) wire_fail(errno, "read a link", here());
    if (target_length == 0 || target_length > LAYER_PATH_MAX) wire_fail(ENAMETOOLONG, "a link of a layer may have 4,095 bytes", here());
  }
  const struct told told = {
      .kind = kind_of(item),
      .mode = item->mode & 07777,
      .uid = item->uid,
      .gid = item->gid,
      .links = item->links,
      .size = item->size,
      .inode = item->inode,
      .mtime_ns = item->mtime_ns,
      .ctime_ns = item->ctime_ns,
      .path = here(),
      .target = span_of(target, (size_t)target_length),
  };
  tell_present(&told, &attributes, w.old != NULL);
  return true;
}

static void tell_item(uint32_t at, uint32_t folder) {
  int fd = open_folder(folder);
  if (fd >= 0 && w.directory != folder) {
    if (fchdir(fd) != 0) wire_fail(errno, "enter a folder", here());
    w.directory = folder;
  }
  struct item *item = &w.now.items[at];
  if (fd >= 0 && tell(item, item_name(&w.now, item))) return;
  item->hidden = true;
  w.now.folders[folder].incomplete = true;
}

static void tell_gone_in(uint32_t old_folder);

static void tell_gone(const struct item *was) {
  if (was->hidden) return;
  size_t before = push_name(item_name(w.old, was), was->name_length);
  tell_removed(here());
  if (was->folder != NONE) tell_gone_in(was->folder);
  w.path_length = before;
}

static void tell_gone_in(uint32_t old_folder) {
  const struct folder *folder = &w.old->folders[old_folder];
  for (uint32_t i = folder->first; i < folder->first + folder->count; i++) tell_gone(&w.old->items[i]);
}

// --- The tree ------------------------------------------------------------------------------------------------------------------------------------

static void visit(uint32_t item, uint32_t parent, uint32_t old_folder);

// Of one path: tells when it is new or has changed, and goes on below. `was`: NONE when nobody has heard of it.
static void visit_item(uint32_t at, uint32_t folder, uint32_t was) {
  size_t before = push_name(item_name(&w.now, &w.now.items[at]), w.now.items[at].name_length);
  if (was == NONE || w.state[was] != SCAN_SAME) tell_item(at, folder);
  uint32_t old_folder = was == NONE ? NONE : w.old->items[was].folder;
  if (w.now.items[at].hidden) {
    w.path_length = before;
    if (was != NONE) tell_gone(&w.old->items[was]);
    return;
  }
  if (S_ISDIR(w.now.items[at].mode)) visit(at, folder, old_folder);
  else if (old_folder != NONE) tell_gone_in(old_folder);
  w.path_length = before;
}

// As deep as the tree, which the length of paths bounds at 2,048 calls.
static void visit(uint32_t item, uint32_t parent, uint32_t old_folder) {
  uint32_t self = listing_add_folder(&w.now, item, parent);
  bool known = old_folder != NONE && !w.old->folders[old_folder].incomplete && w.state[w.old->folders[old_folder].item] == SCAN_SAME;
  if (known) fill_from_memory(self, old_folder);
  else fill_from_names(self, old_folder);
  uint32_t first = w.now.folders[self].first, end = w.now.item_count;
  w.now.folders[self].count = end - first;
  uint32_t was = 0, was_end = 0;
  if (old_folder != NONE) {
    was = w.old->folders[old_folder].first;
    was_end = was + w.old->folders[old_folder].count;
  }
  for (uint32_t at = first; at < end; at++) {
    int order = 1;
    for (; was < was_end; was++) {
      order = compare_names(item_name(w.old, &w.old->items[was]), item_name(&w.now, &w.now.items[at]));
      if (order >= 0) break;
      tell_gone(&w.old->items[was]);
    }
    bool found = was < was_end && order == 0;
    visit_item(at, self, found && !w.old->items[was].hidden ? was : NONE);
    was += found;
  }
  for (; was < was_end; was++) tell_gone(&w.old->items[was]);
}

static void walk(void) {
  int64_t before_ns = clock_ns();
  uint32_t root = listing_add_item(&w.now, "", 0);
  chain_start(&w.chain, &w.now, O_RDONLY | O_NOATIME, true);
  w.directory = NONE;
  w.path_length = 0;
  struct stat st;
  int top = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (top < 0 || fchdir(top) != 0 || fstatat(AT_FDCWD, "/", &st, AT_SYMLINK_NOFOLLOW) != 0) wire_fail(errno, "look at the layer", no_path());
  close(top);
  item_set(&w.now.items[root], &st, before_ns);
  if (!w.old || w.state[0] != SCAN_SAME) tell(&w.now.items[root], ".");
  visit(root, NONE, w.old ? 0 : NONE);
  chain_end(&w.chain);
  listing_free(&remembered);
  remembered = w.now;
  remembers = true;
  w.now = (struct listing){0};
}

void walk_all(void) {
  w.old = NULL;
  w.state = NULL;
  walk();
  tell_done();
}

void walk_changes(int processors) {
  if (!remembers) wire_fail(EINVAL, "changes before a walk", no_path());
  uint8_t *state = scan(&remembered, processors);
  if (state) {
    w.old = &remembered;
    w.state = state;
    walk();
    free(state);
  }
  tell_done();
}
