#define _GNU_SOURCE
#include "shift.h"

#include <errno.h>
#include <fts.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "overlay.h"

static uint32_t get_u32(const uint8_t *at) { return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24; }

static void put_u32(uint8_t *at, uint32_t value) {
  for (int i = 0; i < 4; i++, value >>= 8) at[i] = (uint8_t)value;
}

// capabilities(7), "File capability extended attribute versioning": revision 3 is revision 2 and the id of the root whose namespace it is good for.
static const char *shift_capability(const char *path, uint32_t uid_base, const uint8_t *value, ssize_t size) {
  uint8_t shifted[XATTR_CAPS_SZ_3];
  if (size != XATTR_CAPS_SZ_2 || (get_u32(value) & VFS_CAP_REVISION_MASK) != VFS_CAP_REVISION_2) return NULL;
  memcpy(shifted, value, (size_t)size);
  put_u32(shifted, VFS_CAP_REVISION_3 | (get_u32(value) & VFS_CAP_FLAGS_EFFECTIVE));
  put_u32(shifted + XATTR_CAPS_SZ_2, uid_base);
  return lsetxattr(path, "security.capability", shifted, sizeof shifted, 0) == 0 ? NULL : "set file capabilities";
}

// acl(5) as an attribute: a u32 version, then for each entry u16 tag, u16 permissions, u32 id. Only named users and groups have an id.
static const char *shift_acl(const char *path, const char *name, uint32_t uid_base) {
  enum { HEADER = 4, ENTRY = 8, TAG_USER = 2, TAG_GROUP = 8 };
  uint8_t value[4096];
  ssize_t size = lgetxattr(path, name, value, sizeof value);
  if (size < 0 && errno != ENODATA && errno != ENOTSUP) return "read an access control list";
  bool changed = false;
  for (ssize_t at = HEADER; at + ENTRY <= size; at += ENTRY) {
    uint32_t id = get_u32(value + at + 4);
    if ((value[at] != TAG_USER && value[at] != TAG_GROUP) || id >= UID_COUNT) continue;
    put_u32(value + at + 4, id + uid_base);
    changed = true;
  }
  return !changed || lsetxattr(path, name, value, (size_t)size, 0) == 0 ? NULL : "set an access control list";
}

// chown(2) takes setuid, setgid and file capabilities away, so they are put back.
static const char *shift_inode(const char *path, const struct stat *s, uint32_t uid_base) {
  uint8_t capability[XATTR_CAPS_SZ_3];
  ssize_t size = S_ISREG(s->st_mode) ? lgetxattr(path, "security.capability", capability, sizeof capability) : -1;
  if (size < 0 && S_ISREG(s->st_mode) && errno != ENODATA && errno != ENOTSUP) return "read file capabilities";
  if (lchown(path, s->st_uid + uid_base, s->st_gid + uid_base) != 0) return "lchown";
  if (S_ISLNK(s->st_mode)) return NULL;
  if (s->st_mode & (S_ISUID | S_ISGID) && chmod(path, s->st_mode & 07777) != 0) return "chmod";
  const char *step = size > 0 ? shift_capability(path, uid_base, capability, size) : NULL;
  if (!step) step = shift_acl(path, "system.posix_acl_access", uid_base);
  if (!step && S_ISDIR(s->st_mode)) step = shift_acl(path, "system.posix_acl_default", uid_base);
  return step;
}

static struct outcome shift_tree(uint32_t uid_base) {
  char here[] = ".";
  char *const top[] = {here, NULL};
  uint64_t changed = 0;
  const char *step = NULL;
  FTS *tree = fts_open(top, FTS_PHYSICAL | FTS_XDEV, NULL);
  if (!tree) return failed("walk the image");
  while (!step) {
    // NULL is also how it says that it cannot go on.
    errno = 0;
    const FTSENT *entry = fts_read(tree);
    if (!entry) {
      if (errno) step = "walk the image";
      break;
    }
    if (entry->fts_info == FTS_DP) continue;
    if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR || entry->fts_info == FTS_NS) {
      errno = entry->fts_errno;
      step = "walk the image";
      break;
    }
    const struct stat *s = entry->fts_statp;
    // The root has its owner already.
    if (s->st_uid >= UID_COUNT || s->st_gid >= UID_COUNT) continue;
    step = shift_inode(entry->fts_accpath, s, uid_base);
    changed++;
  }
  struct outcome outcome = step ? failed(step) : done(changed);
  fts_close(tree);
  return outcome;
}

struct outcome shift_image(const struct request *request) {
  static struct request layers;
  struct outcome outcome = overlay_prepare_child();
  if (outcome.error) return outcome;
  layers = (struct request){.uid_base = request->uid_base, .flags = ROOT_VOLATILE | ROOT_SHIFTED, .lower_count = 1, .lowers = {request->path}, .path = request->second};
  outcome = overlay_build(&layers);
  if (outcome.error) return outcome;
  // What is changed on the way is changed in the upper layer only, and of a file its data stays where it is.
  if (fchdir((int)outcome.value) != 0) return failed("enter the image");
  return shift_tree(request->uid_base);
}
