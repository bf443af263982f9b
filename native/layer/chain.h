// The way from the layer's root to one folder of a listing: a descriptor for each step, opened when first needed. No link is ever followed, for each step is
// one name, opened in the folder above.
#pragma once
#include <stdint.h>
#include <sys/types.h>

#include "listing.h"

// A path of 4,095 bytes has 2,048 names at most.
enum { CHAIN_LEVELS = 2049 };

struct chain {
  const struct listing *listing;
  int flags;    // of open(2), besides those that every step has
  bool check;   // each folder must be the one the listing has
  dev_t device; // of the root, for that check
  uint32_t count;
  struct level {
    uint32_t folder;
    int fd;
  } levels[CHAIN_LEVELS];
};

void chain_start(struct chain *chain, const struct listing *listing, int flags, bool check);
void chain_to(struct chain *chain, uint32_t folder);
// The descriptor of the last folder; stays the chain's. -1 with an errno; ESTALE when something else is there now.
int chain_open(struct chain *chain);
void chain_end(struct chain *chain);
// What such an error means while others change the tree: it is not there any more.
bool chain_vanished(int error);
