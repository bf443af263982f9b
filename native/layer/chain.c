#define _GNU_SOURCE
#include "chain.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void chain_start(struct chain *chain, const struct listing *listing, int flags, bool check) {
  chain->listing = listing;
  chain->flags = flags | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  chain->check = check;
  chain->count = 0;
}

static void close_level(struct chain *chain, uint32_t at) {
  if (chain->levels[at].fd >= 0) close(chain->levels[at].fd);
}

void chain_to(struct chain *chain, uint32_t folder) {
  const struct folder *folders = chain->listing->folders;
  uint32_t at = folders[folder].depth, before = chain->count;
  while (chain->count > at + 1) close_level(chain, --chain->count);
  if (chain->count < at + 1) chain->count = at + 1;
  // Up to the first folder that the way already leads through.
  for (;; folder = folders[folder].parent, at--) {
    if (at < before && chain->levels[at].folder == folder) return;
    if (at < before) close_level(chain, at);
    chain->levels[at] = (struct level){folder, -1};
    if (at == 0) return;
  }
}

int chain_open(struct chain *chain) {
  const struct listing *l = chain->listing;
  uint32_t at = chain->count;
  while (at > 0 && chain->levels[at - 1].fd < 0) at--;
  for (; at < chain->count; at++) {
    struct level *level = &chain->levels[at];
    const struct item *item = &l->items[l->folders[level->folder].item];
    int fd = at == 0 ? open("/", chain->flags) : openat(chain->levels[at - 1].fd, item_name(l, item), chain->flags);
    if (fd < 0) return -1;
    struct stat st;
    if (chain->check) {
      int error = fstat(fd, &st) != 0 ? errno : at > 0 && st.st_dev != chain->device ? EXDEV : at > 0 && st.st_ino != item->inode ? ESTALE : 0;
      if (error) {
        close(fd);
        errno = error;
        return -1;
      }
      if (at == 0) chain->device = st.st_dev;
    }
    level->fd = fd;
  }
  return chain->levels[chain->count - 1].fd;
}

void chain_end(struct chain *chain) {
  while (chain->count > 0) close_level(chain, --chain->count);
}

bool chain_vanished(int error) { return error == ENOENT || error == ENOTDIR || error == ELOOP || error == ESTALE; }
