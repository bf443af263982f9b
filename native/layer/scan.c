#define _GNU_SOURCE
#include "scan.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "chain.h"
#include "wire.h"

enum { THREADS = 2, WORTH_A_THREAD = 2000 };

static struct job {
  const struct listing *listing;
  uint8_t *state;
  uint32_t from, to;  // folders
  bool different;
  struct chain chain;
} jobs[THREADS];

static void look_at(struct job *job, const struct folder *folder, int fd) {
  const struct listing *l = job->listing;
  for (uint32_t i = folder->first; i < folder->first + folder->count; i++) {
    const struct item *item = &l->items[i];
    struct stat st;
    bool same = fd >= 0 && !item->recent && !item->hidden && fstatat(fd, item_name(l, item), &st, AT_SYMLINK_NOFOLLOW) == 0 && item_same(item, &st);
    if (same) continue;
    job->state[i] = SCAN_DIFFERENT;
    job->different = true;
  }
}

static void *run(void *argument) {
  struct job *job = argument;
  chain_start(&job->chain, job->listing, O_PATH, false);
  for (uint32_t at = job->from; at < job->to; at++) {
    const struct folder *folder = &job->listing->folders[at];
    if (folder->incomplete) job->different = true;
    if (folder->count == 0) continue;
    chain_to(&job->chain, at);
    look_at(job, folder, chain_open(&job->chain));
  }
  chain_end(&job->chain);
  return NULL;
}

static bool root_same(const struct item *root) {
  struct stat st;
  return !root->recent && fstatat(AT_FDCWD, "/", &st, AT_SYMLINK_NOFOLLOW) == 0 && item_same(root, &st);
}

uint8_t *scan(const struct listing *l, int processors) {
  uint8_t *state = calloc(l->item_count, 1);
  if (!state) wire_fail(ENOMEM, "compare the layer", no_path());
  bool different = !root_same(&l->items[0]);
  if (different) state[0] = SCAN_DIFFERENT;
  bool both = processors > 1 && l->item_count >= WORTH_A_THREAD;
  // Where the second thread takes over: its first folder is the one that has the item in the middle.
  uint32_t middle = l->folder_count;
  for (uint32_t at = 0, seen = 0; both && at < l->folder_count; at++) {
    seen += l->folders[at].count;
    if (seen < l->item_count / 2) continue;
    middle = at + 1;
    break;
  }
  for (int i = 0; i < THREADS; i++) {
    jobs[i].listing = l;
    jobs[i].state = state;
    jobs[i].from = i ? middle : 0;
    jobs[i].to = i ? l->folder_count : middle;
    jobs[i].different = false;
  }
  pthread_t second;
  bool started = both && middle < l->folder_count && pthread_create(&second, NULL, run, &jobs[1]) == 0;
  run(&jobs[0]);
  if (started) pthread_join(second, NULL);
  else run(&jobs[1]);
  for (int i = 0; i < THREADS; i++) different |= jobs[i].different;
  if (different) return state;
  free(state);
  return NULL;
}
