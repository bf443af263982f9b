#include "request.h"

#include <errno.h>

#include "disk.h"
#include "identity.h"
#include "init-world.h"
#include "root.h"
#include "stats.h"

static bool reply(struct bytes *out, uint32_t request, int error) {
  put_reply_head(out, request, error, 0);
  return true;
}

static bool ping(uint32_t request, struct reader *r, struct bytes *out) {
  uint32_t length = (uint32_t)(r->end - r->at);
  if (length > PING_BYTES_MAX) return false;
  put_reply_head(out, request, 0, length);
  bytes_append(out, r->at, length);
  return true;
}

static bool identity(uint32_t request, struct reader *r, struct bytes *out) {
  struct identity identity;
  if (!decode_identity(r, &identity)) return false;
  bool writes = *identity.hostname || identity.hosts.length || identity.resolv_conf.length || identity.machine_id.length;
  return reply(out, request, writes && disk_is_frozen() ? EBUSY : identity_set(&identity));
}

static bool disk(uint32_t request, uint8_t op, struct reader *r, struct bytes *out) {
  const char *serial = op == OP_ATTACH ? read_string(r) : "";
  const uint8_t *uuid = op == OP_ATTACH ? read_bytes(r, 16) : NULL;
  const char *scope = op == OP_ATTACH && r->at < r->end ? read_string(r) : NULL;
  if (!reader_done(r)) return false;
  if (!root_is_vm()) return reply(out, request, EOPNOTSUPP);
  // Its mounts hold the disk.
  if (init_world_lives() && (op == OP_ATTACH || op == OP_DETACH)) return reply(out, request, EBUSY);
  switch (op) {
    case OP_ATTACH:
      return reply(out, request, disk_attach(serial, uuid, scope));
    case OP_DETACH:
      return reply(out, request, disk_detach());
    case OP_FREEZE:
      disk_freeze(request, out);
      return true;
    default:
      return reply(out, request, disk_thaw());
  }
}

static bool stats(uint32_t request, const struct reader *r, struct bytes *out) {
  struct stats stats;
  if (!reader_done(r)) return false;
  int error = stats_read(&stats);
  if (error) return reply(out, request, error);
  put_reply_stats(out, request, &stats);
  return true;
}

bool request_take(uint32_t request, struct reader *r, struct bytes *out) {
  uint8_t op = read_u8(r);
  switch (op) {
    case OP_PING:
      return ping(request, r, out);
    case OP_IDENTITY:
      return identity(request, r, out);
    case OP_ATTACH:
    case OP_DETACH:
    case OP_FREEZE:
    case OP_THAW:
      return disk(request, op, r, out);
    case OP_STATS:
      return stats(request, r, out);
    default:
      return false;
  }
}
