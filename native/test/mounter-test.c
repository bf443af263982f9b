// The mounter's request reader, and the removal of trees both programs share.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "../mounter/request.h"
#include "../tree/narrow-upper.h"
#include "../tree/remove-tree.h"
#include "check.h"

const char *check_what = "";

static uint8_t frame[256];
static size_t length;
static struct request request;

static void put(uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++, value >>= 8) frame[length++] = (uint8_t)value;
}

static void put_path(const char *path) {
  put(strlen(path), 2);
  memcpy(frame + length, path, strlen(path));
  length += strlen(path);
}

static void begin(uint8_t op) {
  length = 0;
  put(77, 4);
  put(op, 1);
}

static bool decode(size_t bytes) {
  // On the heap to the byte, so that the sanitizer sees any step past the end.
  uint8_t *copy = malloc(bytes ? bytes : 1);
  memcpy(copy, frame, bytes);
  bool good = request_decode(copy, bytes, &request);
  if (good && request.path) CHECK(request.path[0] == '/');
  free(copy);
  return good;
}

static void attach_frame(uint64_t uid_base, uint32_t flags) {
  begin(OP_ATTACH);
  put(4242, 4);
  put(0x1122334455667788, 8);
  put(uid_base, 4);
  put(flags, 4);
  put(2, 2);
  put_path("/a");
  put_path("/bb");
  put_path("/upper");
}

static void reads_attach(void) {
  attach_frame(1 << 20, 1);
  CHECK(request_decode(frame, length, &request));
  CHECK(request.id == 77 && request.op == OP_ATTACH && request.pid == 4242 && request.start == 0x1122334455667788 && request.uid_base == 1 << 20);
  CHECK(request.flags == ROOT_VOLATILE && request.lower_count == 2 && strcmp(request.lowers[0], "/a") == 0 && strcmp(request.lowers[1], "/bb") == 0);
  CHECK(strcmp(request.path, "/upper") == 0);
  attach_frame(1 << 20, 1);
  for (size_t cut = 0; cut < length; cut++) CHECK(!decode(cut));
  length++;
  CHECK(!decode(length));
}

static void root_frame(uint8_t op, uint32_t flags, uint16_t lowers) {
  begin(op);
  put_path("/dir");
  put(1 << 20, 4);
  put(flags, 4);
  put(lowers, 2);
  for (int i = 0; i < lowers && i < 2; i++) put_path("/lower");
  put_path("/upper");
}

static void reads_roots(void) {
  root_frame(OP_MOUNT_ROOT, ROOT_VOLATILE | ROOT_SHIFTED, 2);
  CHECK(request_decode(frame, length, &request));
  CHECK(strcmp(request.second, "/dir") == 0 && request.uid_base == 1 << 20 && request.flags == 3 && request.lower_count == 2);
  CHECK(strcmp(request.lowers[1], "/lower") == 0 && strcmp(request.path, "/upper") == 0);
  root_frame(OP_MOUNT_ROOT, 0, 2);
  for (size_t cut = 0; cut < length; cut++) CHECK(!decode(cut));
  root_frame(OP_MOUNT_ROOT, 4, 2);
  CHECK(!decode(length));
  root_frame(OP_MOUNT_ROOT, 0, 0);
  CHECK(!decode(length));
  root_frame(OP_MOUNT_ROOT, 0, LOWERS_MAX + 1);
  CHECK(!decode(length));
  begin(OP_SHIFT);
  put(1 << 20, 4);
  put_path("/image");
  put_path("/dir");
  for (size_t cut = 0; cut < length; cut++) CHECK(!decode(cut));
  CHECK(request_decode(frame, length, &request) && strcmp(request.path, "/image") == 0 && strcmp(request.second, "/dir") == 0);
  begin(OP_RESET_UPPER);
  put_path("/dir");
  put(UPPER_KEEP, 4);
  CHECK(request_decode(frame, length, &request) && request.flags == UPPER_KEEP && strcmp(request.path, "/dir") == 0);
  begin(OP_UNMOUNT_ROOT);
  put_path("/dir");
  CHECK(decode(length));
}

static void narrow_frame(const char *name) {
  begin(OP_NARROW_UPPER);
  put_path(name);
  put(1, 2);
  put_path("/lower");
  put_path("/dir");
}

static void reads_narrowing(void) {
  narrow_frame("workspace");
  for (size_t cut = 0; cut < length; cut++) CHECK(!decode(cut));
  CHECK(request_decode(frame, length, &request) && strcmp(request.second, "workspace") == 0 && request.lower_count == 1 && strcmp(request.path, "/dir") == 0);
  static const char *const bad[] = {"", ".", "..", "a/b", "/"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    narrow_frame(bad[i]);
    CHECK(!decode(length));
  }
  begin(OP_NARROW_UPPER);
  put_path("name");
  put(0, 2);
  put_path("/dir");
  CHECK(request_decode(frame, length, &request) && request.lower_count == 0 && strcmp(request.path, "/dir") == 0);
  begin(OP_SWEEP_UPPER);
  put_path("/dir");
  put(2000, 4);
  CHECK(request_decode(frame, length, &request) && request.number == 2000);
}

static void refuses_values(void) {
  static const uint64_t bases[] = {0, 65535, 65537, 0xffff0000};
  for (size_t i = 0; i < sizeof bases / sizeof *bases; i++) {
    attach_frame(bases[i], 0);
    CHECK(!decode(length));
  }
  attach_frame(0xfffe0000, 0);
  CHECK(decode(length));
  attach_frame(1 << 20, 2);
  CHECK(!decode(length));
  begin(OP_SEAL);
  put_path("relative");
  CHECK(!decode(length));
  begin(OP_SEAL);
  put(0, 2);
  CHECK(!decode(length));
  begin(OP_SEAL);
  put(4, 2);
  memcpy(frame + length, "/a\0b", 4);
  length += 4;
  CHECK(!decode(length));
  begin(OP_KILL);
  put(1, 4);
  put(1, 8);
  put(100, 4);
  CHECK(!decode(length));
  begin(OP_RUN);
  put(1000, 4);
  put_path("/log");
  put(ARGUMENTS_MAX + 1, 2);
  CHECK(!decode(length));
  begin(99);
  CHECK(!decode(length));
}

static void reads_others(void) {
  begin(OP_MOUNT_IMAGE);
  put_path("/image");
  put_path("/dir");
  put(IMAGE_DISCARD | IMAGE_NOATIME | IMAGE_READ_ONLY, 4);
  CHECK(request_decode(frame, length, &request));
  CHECK(strcmp(request.path, "/image") == 0 && strcmp(request.second, "/dir") == 0 && request.flags == 7);
  begin(OP_KILL);
  put(2, 4);
  put(9, 8);
  put(1500, 4);
  CHECK(request_decode(frame, length, &request) && request.pid == 2 && request.start == 9 && request.number == 1500);
  begin(OP_UNSEAL);
  put(12, 4);
  CHECK(request_decode(frame, length, &request) && request.number == 12);
  begin(OP_RUN);
  put(1000, 4);
  put_path("/log");
  put(2, 2);
  put_path("crun");
  put_path("");
  CHECK(request_decode(frame, length, &request) && request.number == 1000 && strcmp(request.path, "/log") == 0);
  CHECK(strcmp(request.arguments[0], "crun") == 0 && !*request.arguments[1] && !request.arguments[2]);
}

static int open_directory(const char *path) { return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC); }

static void removes_trees(void) {
  enum { DEPTH = 3000, FILES = 2000 };
  char top[] = "/tmp/remove-tree-XXXXXX", outside[] = "/tmp/remove-tree-kept-XXXXXX", name[32];
  CHECK(mkdtemp(top) && mkdtemp(outside));
  int kept = open_directory(outside), home = open_directory(".");
  CHECK(mkdirat(kept, "stays", 0755) == 0 && chdir(top) == 0);
  CHECK(symlink(outside, "link") == 0 && mkfifo("fifo", 0600) == 0 && mkdir("empty", 0) == 0);
  for (int i = 0; i < FILES; i++) {
    sprintf(name, "file-%d", i);
    close(open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  }
  for (int i = 0; i < DEPTH; i++) CHECK(mkdir("deep", 0755) == 0 && chdir("deep") == 0 && symlink("..", "up") == 0);
  CHECK(fchdir(home) == 0);
  uint64_t removed = 0;
  CHECK(remove_tree_contents(open_directory(top), &removed) == 0);
  CHECK(removed == 2 * DEPTH + FILES + 3 && rmdir(top) == 0);
  CHECK(unlinkat(kept, "stays", AT_REMOVEDIR) == 0 && rmdir(outside) == 0);
  close(kept);
  close(home);
}

static int top_dir;

static bool has(const char *path) {
  struct stat s;
  return fstatat(top_dir, path, &s, AT_SYMLINK_NOFOLLOW) == 0;
}

static void make_file(const char *path) {
  int fd = openat(top_dir, path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  CHECK(fd >= 0 && write(fd, "x", 1) == 1 && close(fd) == 0);
}

static mode_t mode_of(const char *path) {
  struct stat s;
  CHECK(fstatat(top_dir, path, &s, AT_SYMLINK_NOFOLLOW) == 0);
  return s.st_mode;
}

static void narrow(const char *const *lowers, int count) {
  int dir = openat(top_dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  CHECK(dir >= 0 && narrow_upper(dir, "workspace", lowers, count) == 0 && close(dir) == 0);
}

static void narrows_uppers(void) {
  enum { FILES = 300 };
  char top[] = "/tmp/narrow-XXXXXX", shows[64], hides[64], name[32];
  CHECK(mkdtemp(top));
  umask(0);
  snprintf(shows, sizeof shows, "%s/shows", top);
  snprintf(hides, sizeof hides, "%s/hides", top);
  const char *const nothing[] = {hides}, *const image[] = {hides, shows}, *const covered[] = {shows, hides};
  top_dir = open_directory(top);
  CHECK(mkdirat(top_dir, "shows", 0755) == 0 && mkdirat(top_dir, "shows/workspace", 0755) == 0 && mkdirat(top_dir, "hides", 0755) == 0);
  CHECK(mkdirat(top_dir, "u", 0755) == 0);

  // Without lower layers nothing is made.
  narrow(NULL, 0);
  CHECK(!has("u/workspace") && !has("x"));
  // Nothing there: made, unless the image shows one.
  narrow(image, 2);
  CHECK(!has("u/workspace") && !has("x"));
  narrow(nothing, 1);
  CHECK(mode_of("u/workspace") == (S_IFDIR | 0755) && !has("x"));

  // Everything else goes; the folder itself is not touched.
  make_file("u/workspace/kept");
  CHECK(fchmodat(top_dir, "u/workspace", 01770, 0) == 0 && fchmodat(top_dir, "u", 0700, 0) == 0);
  CHECK(mkdirat(top_dir, "u/root", 0700) == 0 && symlinkat(top, top_dir, "u/link") == 0 && symlinkat(top, top_dir, "u/root/link") == 0);
  for (int i = 0; i < FILES; i++) {
    sprintf(name, "u/root/%d", i);
    make_file(name);
    sprintf(name, "u/file-%d", i);
    make_file(name);
  }
  // As many attributes as the file system takes.
  char attribute[250];
  int open_upper = openat(top_dir, "u", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  for (int i = 0; i < 250; i++) {
    snprintf(attribute, sizeof attribute, "user.%0*d", 200, i);
    if (fsetxattr(open_upper, attribute, "", 0, 0) != 0) break;
  }
  narrow(nothing, 1);
  snprintf(attribute, sizeof attribute, "user.%0*d", 200, 0);
  CHECK(fgetxattr(open_upper, attribute, NULL, 0) == -1 && close(open_upper) == 0);
  CHECK(has("u/workspace/kept") && mode_of("u/workspace") == (S_IFDIR | 01770) && mode_of("u") == (S_IFDIR | 0755));
  CHECK(!has("u/root") && !has("u/link") && !has("u/file-0") && !has("u/file-299") && has("x/0/root/link"));

  // What was taken out and is not removed yet is in nobody's way.
  CHECK(mkdirat(top_dir, "u/root", 0755) == 0);
  narrow(nothing, 1);
  CHECK(has("x/0/root") && has("x/1/root"));
  int rounds = 1, error;
  while ((error = narrow_sweep(top_dir, 100)) == EAGAIN) rounds++;
  CHECK(error == 0 && rounds == 7 && has("x") && !has("x/0") && !has("x/1") && has("shows/workspace"));

  // What is no folder is one afterwards, and what it hid stays hidden.
  CHECK(unlinkat(top_dir, "u/workspace/kept", 0) == 0 && unlinkat(top_dir, "u/workspace", AT_REMOVEDIR) == 0 && symlinkat("/etc", top_dir, "u/workspace") == 0);
  char opaque = 0;
  if (getuid() == 0) {
    narrow(covered, 2);
    CHECK(mode_of("u/workspace") == (S_IFDIR | 0755));
    snprintf(shows, sizeof shows, "%s/u/workspace", top);
    ssize_t got = getxattr(shows, "trusted.overlay.opaque", &opaque, 1);
    CHECK(got == 1 && opaque == 'y');
    narrow(nothing, 1);
    CHECK(getxattr(shows, "trusted.overlay.opaque", &opaque, 1) == 1);
  }
  uint64_t removed = 0;
  CHECK(remove_tree_contents(top_dir, &removed) == 0 && rmdir(top) == 0);
}

// Ended at any moment, it leaves the folder where it is, and can be done again.
static void survives_being_killed(void) {
  enum { ENTRIES = 40, ROUNDS = 120, STEP_US = 10 };
  char top[] = "/tmp/narrow-killed-XXXXXX", name[32];
  CHECK(mkdtemp(top));
  top_dir = open_directory(top);
  CHECK(mkdirat(top_dir, "u", 0755) == 0 && mkdirat(top_dir, "lower", 0755) == 0 && mkdirat(top_dir, "u/workspace", 0755) == 0);
  make_file("u/workspace/kept");
  char lower[64];
  snprintf(lower, sizeof lower, "%s/lower", top);
  const char *const lowers[] = {lower};
  int killed = 0;
  for (int round = 0; round < ROUNDS; round++) {
    for (int i = 0; i < ENTRIES; i++) {
      sprintf(name, "u/entry-%d", i);
      make_file(name);
    }
    pid_t child = fork();
    if (child == 0) {
      const struct itimerval end = {.it_value.tv_usec = 1 + round * STEP_US};
      setitimer(ITIMER_REAL, &end, NULL);
      narrow(lowers, 1);
      narrow_sweep(top_dir, 10);
      _exit(0);
    }
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    killed += WIFSIGNALED(status);
    CHECK(has("u/workspace/kept"));
    if (round % 3 == 0) continue;
    narrow(lowers, 1);
    CHECK(has("u/workspace/kept") && !has("u/entry-0") && !has("u/entry-39"));
  }
  CHECK(killed > 0);
  uint64_t removed = 0;
  CHECK(remove_tree_contents(top_dir, &removed) == 0 && rmdir(top) == 0);
}

int main(void) {
  reads_attach();
  reads_roots();
  reads_narrowing();
  refuses_values();
  reads_others();
  removes_trees();
  narrows_uppers();
  survives_being_killed();
  printf("requests are read, trees removed, uppers narrowed\n");
}
