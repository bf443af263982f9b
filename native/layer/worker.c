#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "confine.h"
#include "content.h"
#include "fill.h"
#include "layer-request.h"
#include "layer.h"
#include "tell.h"
#include "walk.h"
#include "wire.h"

static int count_processors(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

static void serve(int processors) {
  uint32_t index = 0;
  for (struct ask ask; wire_next(&ask);) {
    bool bare = ask.payload.length == 0;
    if (ask.type == ASK_READ) {
      content_tell(ask.payload, &index);
    } else if (ask.type == ASK_READ_END && bare) {
      index = 0;
      tell_done();
    } else if (ask.type == ASK_WALK && bare) {
      walk_all();
    } else if (ask.type == ASK_CHANGES && bare) {
      walk_changes(processors);
    } else if (ask.type == ASK_WRITE && bare) {
      if (!fill()) return;
    } else {
      wire_fail(EPROTO, "request", no_path());
    }
  }
}

_Noreturn void layer_worker(int connection, int directory) {
  signal(SIGPIPE, SIG_IGN);
  directory = confine_descriptors(connection, directory);
  wire_start(0);
  struct ask ask;
  uint32_t version;
  struct span folder, only;
  if (!wire_next(&ask)) _exit(0);
  if (ask.type != ASK_OPEN || !layer_decode_open(ask.payload, &version, &folder, &only)) wire_fail(EPROTO, "open", no_path());
  if (version != WIRE_VERSION) wire_fail(EPROTONOSUPPORT, "open", no_path());
  walk_only(only);
  // A guest's worker has its folder; one on the host is told.
  if ((directory < 0) == (folder.length == 0)) wire_fail(EINVAL, "open", folder);
  if (directory < 0) directory = confine_open(folder);
  confine(directory);
  tell_ready();
  serve(count_processors());
  _exit(0);
}
