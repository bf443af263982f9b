// The layer worker as a child, on a real folder tree, driven through its socket. Needs root.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "../layer/layer-request.h"
#include "../layer/layer.h"
#include "check.h"

enum { WAIT_MS = 20000, LIST_MAX = 60000, SMALL_BUFFER = 4096 };

const char *check_what = "";

static char top[64], outside[64];
static int peer = -1;
static pid_t worker;

// --- A small host ----------------------------------------------------------------------------------------------------------------------------------

static void start(int buffer_bytes, bool guest) {
  int ends[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  if (buffer_bytes) CHECK(setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof buffer_bytes) == 0);
  char path[80];
  snprintf(path, sizeof path, "%s/u", top);
  int directory = guest ? open(path, O_PATH | O_DIRECTORY) : -1;
  worker = fork();
  CHECK(worker >= 0);
  if (worker == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    layer_worker(ends[1], directory);
  }
  close(ends[1]);
  if (directory >= 0) close(directory);
  peer = ends[0];
}

static void stop(int expected) {
  int status;
  close(peer);
  CHECK(waitpid(worker, &status, 0) == worker);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == expected);
}

static void ask(uint8_t type, const void *payload, size_t length) {
  uint8_t header[WIRE_HEADER_BYTES] = {(uint8_t)length, (uint8_t)(length >> 8), (uint8_t)(length >> 16), (uint8_t)(length >> 24), type};
  CHECK(write(peer, header, sizeof header) == sizeof header);
  CHECK(length == 0 || write(peer, payload, length) == (ssize_t)length);
}

static void get(void *into, size_t count) {
  for (size_t got = 0; got < count;) {
    struct pollfd ready = {.fd = peer, .events = POLLIN};
    CHECK(poll(&ready, 1, WAIT_MS) == 1);
    ssize_t length = read(peer, (uint8_t *)into + got, count - got);
    CHECK(length > 0);
    got += (size_t)length;
  }
}

static uint8_t payload[WIRE_PAYLOAD_MAX];
static size_t payload_length;

static uint8_t answer(void) {
  uint8_t header[WIRE_HEADER_BYTES];
  get(header, sizeof header);
  payload_length = header[0] | (size_t)header[1] << 8 | (size_t)header[2] << 16 | (size_t)header[3] << 24;
  CHECK(payload_length <= sizeof payload);
  get(payload, payload_length);
  return header[4];
}

static void open_layer(const char *folder) {
  uint8_t bytes[4200] = {WIRE_VERSION};
  size_t length = strlen(folder);
  bytes[4] = (uint8_t)length;
  bytes[5] = (uint8_t)(length >> 8);
  memcpy(bytes + 6, folder, length);
  ask(ASK_OPEN, bytes, 6 + length);
}

static void begin(int buffer_bytes, bool guest) {
  start(buffer_bytes, guest);
  open_layer(guest ? "" : top);
  CHECK(answer() == TELL_READY);
}

static void expect_error(int error, const char *path) {
  CHECK(answer() == TELL_ERROR);
  struct layer_reader r = layer_read(span_of(payload, payload_length));
  int got = (int)layer_read_number(&r, 4);
  layer_read_span(&r);
  struct span at = layer_read_span(&r);
  if (got != error) fprintf(stderr, "errno %d in place of %d\n", got, error);
  CHECK(!r.bad && got == error && at.length == strlen(path) && memcmp(at.bytes, path, at.length) == 0);
}

// --- Lists -----------------------------------------------------------------------------------------------------------------------------------------

static struct line {
  char path[LAYER_PATH_MAX + 1];
  uint8_t what, kind;
  uint16_t mode;
  uint64_t size, inode;
  uint32_t links, attributes;
  char target[64];
} *lines;
static size_t line_count;

static void take_entry(struct layer_reader *r, struct line *line) {
  line->kind = (uint8_t)layer_read_number(r, 1);
  line->mode = (uint16_t)layer_read_number(r, 2);
  layer_read_number(r, 8);
  line->size = layer_read_number(r, 8);
  layer_read_number(r, 8);
  layer_read_number(r, 8);
  line->inode = layer_read_number(r, 8);
  line->links = (uint32_t)layer_read_number(r, 4);
  struct span path = layer_read_span(r), target = layer_read_span(r);
  CHECK(path.length == 0 ? line_count == 0 : layer_path_good(path));
  if (path.length) memcpy(line->path, path.bytes, path.length);
  memcpy(line->target, target.bytes, target.length < sizeof line->target ? target.length : sizeof line->target - 1);
  line->attributes = (uint32_t)layer_read_number(r, 2);
  uint32_t left = line->attributes;
  for (struct attribute a; layer_next_attribute(r, &left, &a);) CHECK(layer_attribute_kept((const char *)a.name.bytes, a.name.length));
}

static void take_batch(bool changes) {
  for (struct layer_reader r = layer_read(span_of(payload, payload_length)); r.at < r.end;) {
    CHECK(line_count < LIST_MAX);
    struct line *line = &lines[line_count];
    memset(line, 0, sizeof *line);
    line->what = changes ? (uint8_t)layer_read_number(&r, 1) : CHANGED_PRESENT;
    if (line->what == CHANGED_PRESENT) {
      take_entry(&r, line);
    } else {
      CHECK(line->what == CHANGED_REMOVED);
      struct span path = layer_read_span(&r);
      CHECK(layer_path_good(path));
      memcpy(line->path, path.bytes, path.length);
    }
    CHECK(!r.bad);
    line_count++;
  }
}

static void finish_list(bool changes) {
  for (;;) {
    uint8_t type = answer();
    if (type == TELL_DONE) return;
    CHECK(type == (changes ? TELL_CHANGED : TELL_ENTRIES));
    take_batch(changes);
  }
}

static void list(bool changes) {
  line_count = 0;
  ask(changes ? ASK_CHANGES : ASK_WALK, NULL, 0);
  finish_list(changes);
}

static const struct line *find(const char *path) {
  for (size_t i = 0; i < line_count; i++) {
    if (strcmp(lines[i].path, path) == 0) return &lines[i];
  }
  return NULL;
}

static void expect_lines(const char *const *expected) {
  size_t i = 0;
  for (; expected[i]; i++) {
    CHECK(i < line_count);
    const char sign = lines[i].what == CHANGED_PRESENT ? '+' : '-';
    if (sign != expected[i][0] || strcmp(lines[i].path, expected[i] + 1) != 0) fprintf(stderr, "%c%s in place of %s\n", sign, lines[i].path, expected[i]);
    CHECK(sign == expected[i][0] && strcmp(lines[i].path, expected[i] + 1) == 0);
  }
  CHECK(i == line_count);
}

// Until nothing counts as changed a moment ago any more.
static void settle(void) {
  do list(true);
  while (line_count > 0);
}

// --- Trees -----------------------------------------------------------------------------------------------------------------------------------------

static void put_file(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && close(fd) == 0);
}

static void make_top(void) {
  strcpy(top, "/tmp/layer-test-XXXXXX");
  CHECK(mkdtemp(top) && chdir(top) == 0 && mkdir("u", 0755) == 0 && chdir("u") == 0);
}

static void remove_top(void) {
  CHECK(chdir("/") == 0);
  pid_t child = fork();
  if (child == 0) execlp("rm", "rm", "-rf", top, NULL);
  int status;
  CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

static void tells_every_kind(void) {
  check_what = "every kind";
  make_top();
  char longest[256] = "";
  memset(longest, 'n', 255);
  put_file("file", "hello");
  CHECK(link("file", "second") == 0 && symlink("/etc/passwd", "link") == 0 && mkfifo("fifo", 04600) == 0 && mkdir("folder", 01777) == 0);
  CHECK(mknod("whiteout", S_IFCHR, 0) == 0 && mknod("null", S_IFCHR | 0666, makedev(1, 3)) == 0 && mknod("socket", S_IFSOCK | 0600, 0) == 0);
  put_file(longest, "");
  put_file("\xff\xfe\n", "");
  CHECK(setxattr("folder", "trusted.overlay.opaque", "y", 1, 0) == 0 && setxattr("folder", "trusted.overlay.origin", "x", 1, 0) == 0);
  int sparse = open("sparse", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  CHECK(sparse >= 0 && ftruncate(sparse, 1LL << 33) == 0 && close(sparse) == 0);
  begin(0, true);
  list(false);
  static const struct {
    const char *path;
    uint8_t kind;
    uint16_t mode;
  } expected[] = {{"", KIND_DIRECTORY, 0755}, {"fifo", KIND_FIFO, 04600}, {"file", KIND_FILE, 0644}, {"folder", KIND_DIRECTORY, 01777}, {"link", KIND_SYMLINK, 0777},
                  {NULL, KIND_FILE, 0644}, {"null", KIND_DEVICE, 0666}, {"second", KIND_FILE, 0644}, {"socket", KIND_SOCKET, 0600}, {"sparse", KIND_FILE, 0600},
                  {"whiteout", KIND_WHITEOUT, 0}, {"\xff\xfe\n", KIND_FILE, 0644}};
  CHECK(line_count == sizeof expected / sizeof *expected);
  for (size_t i = 0; i < line_count; i++) {
    check_what = lines[i].path;
    CHECK(strcmp(lines[i].path, expected[i].path ? expected[i].path : longest) == 0 && lines[i].kind == expected[i].kind && lines[i].mode == expected[i].mode);
    struct stat st;
    CHECK(lstat(*lines[i].path ? lines[i].path : ".", &st) == 0 && lines[i].inode == st.st_ino && lines[i].size == (uint64_t)st.st_size && lines[i].links == st.st_nlink);
  }
  CHECK(strcmp(find("link")->target, "/etc/passwd") == 0 && find("folder")->attributes == 1 && find("file")->links == 2 && find("sparse")->size == 1ULL << 33);
  stop(0);
  remove_top();
}

static void tells_changes(void) {
  check_what = "changes";
  make_top();
  CHECK(mkdir("a", 0755) == 0 && mkdir("a/b", 0755) == 0 && mkdir("c", 0755) == 0);
  put_file("a/1", "1");
  put_file("a/b/2", "2");
  put_file("a!", "3");
  put_file("c/4", "4");
  begin(0, false);
  list(false);
  settle();
  put_file("c/4", "more");
  CHECK(rename("a/b", "moved") == 0 && mkfifo("a/b", 0600) == 0 && unlink("a!") == 0 && mkdir("a!", 0755) == 0);
  put_file("a!/x", "");
  list(true);
  expect_lines((const char *const[]){"+", "+a", "+a/b", "-a/b/2", "+a!", "+a!/x", "+c/4", "+moved", "+moved/2", NULL});
  settle();
  CHECK(chmod("c/4", 0600) == 0 && setxattr("moved/2", "user.x", "1", 1, 0) == 0 && unlink("a/b") == 0 && unlink("a/1") == 0 && rmdir("a") == 0);
  list(true);
  expect_lines((const char *const[]){"+", "-a", "-a/1", "-a/b", "+c/4", "+moved/2", NULL});
  CHECK(find("c/4")->mode == 0600 && find("moved/2")->attributes == 1);
  stop(0);
  begin(0, false);
  ask(ASK_CHANGES, NULL, 0);
  expect_error(EINVAL, "");
  stop(1);
  remove_top();
}

// More entries than two threads are worth, so that both look.
static void tells_changes_of_many(void) {
  enum { FOLDERS = 60, FILES = 80 };
  check_what = "many changes";
  make_top();
  char path[64];
  for (int i = 0; i < FOLDERS; i++) {
    snprintf(path, sizeof path, "d%02d", i);
    CHECK(mkdir(path, 0755) == 0);
    for (int j = 0; j < FILES; j++) {
      snprintf(path, sizeof path, "d%02d/f%02d", i, j);
      put_file(path, "x");
    }
  }
  begin(0, false);
  list(false);
  CHECK(line_count == 1 + FOLDERS + FOLDERS * FILES);
  settle();
  put_file("d00/f00", "y");
  put_file("d30/f40", "y");
  put_file("d59/f79", "y");
  list(true);
  expect_lines((const char *const[]){"+d00/f00", "+d30/f40", "+d59/f79", NULL});
  stop(0);
  remove_top();
}

static void tells_contents(void) {
  check_what = "contents";
  make_top();
  int fd = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CHECK(fd >= 0 && ftruncate(fd, 1 << 20) == 0 && pwrite(fd, "middle", 6, 512 << 10) == 6 && close(fd) == 0);
  CHECK(symlink("file", "link") == 0 && symlink("/", "root") == 0 && mkfifo("fifo", 0600) == 0);
  begin(0, false);
  static const char paths[] = "\4\0file" "\4\0link" "\4\0fifo" "\17\0root/etc/passwd" "\6\0absent";
  ask(ASK_READ, paths, sizeof paths - 1);
  ask(ASK_READ_END, NULL, 0);
  CHECK(answer() == TELL_HOLE && payload_length == 12 && payload[0] == 0 && payload[6] == 8);
  CHECK(answer() == TELL_DATA && payload_length > 10 && memcmp(payload + 4, "middle", 6) == 0);
  CHECK(answer() == TELL_HOLE && answer() == TELL_END && payload_length == 36);
  for (uint8_t index = 1; index < 5; index++) CHECK(answer() == TELL_MISSING && payload_length == 4 && payload[0] == index);
  CHECK(answer() == TELL_DONE);
  ask(ASK_READ, "\7\0../file", 9);
  expect_error(EPROTO, "");
  stop(1);
  remove_top();
}

// A worker that waits for us to take what it says, in the middle of its walk, finds another tree when it goes on.
static void does_not_follow_what_changes(void) {
  enum { FILES = 20000 };
  check_what = "a folder swapped for a link";
  strcpy(outside, "/tmp/layer-test-outside-XXXXXX");
  CHECK(mkdtemp(outside) && chdir(outside) == 0);
  put_file("secret", "secret");
  make_top();
  CHECK(mkdir("a", 0755) == 0 && mkdir("y", 0755) == 0 && mkdir("z", 0755) == 0);
  char path[64];
  for (int i = 0; i < FILES; i++) {
    snprintf(path, sizeof path, "a/%05d-with-a-name-that-is-not-short", i);
    put_file(path, "");
  }
  put_file("y/inside", "");
  put_file("z/inside", "");
  begin(SMALL_BUFFER, false);
  line_count = 0;
  ask(ASK_WALK, NULL, 0);
  CHECK(answer() == TELL_ENTRIES);
  take_batch(false);
  CHECK(rename("y", "a/was-y") == 0 && symlink(outside, "y") == 0);
  // One more of the same name, with what is not ours below it.
  CHECK(rename("z", "a/was-z") == 0 && mkdir("z", 0755) == 0);
  put_file("z/other", "");
  finish_list(false);
  CHECK(find("y") && !find("y/secret") && !find("y/inside") && !find("z/inside"));
  list(true);
  CHECK(find("y")->kind == KIND_SYMLINK && find("z/other") && find("a/was-y/inside") && !find("y/secret"));
  settle();
  ask(ASK_READ, "\10\0y/secret", 10);
  ask(ASK_READ_END, NULL, 0);
  CHECK(answer() == TELL_MISSING && answer() == TELL_DONE);
  stop(0);
  remove_top();
  strcpy(top, outside);
  remove_top();
}

static uint64_t status_number(const char *name, int base) {
  char path[64], line[256];
  snprintf(path, sizeof path, "/proc/%d/status", worker);
  FILE *file = fopen(path, "re");
  CHECK(file);
  while (fgets(line, sizeof line, file)) {
    if (strncmp(line, name, strlen(name)) != 0) continue;
    fclose(file);
    return strtoull(line + strlen(name), NULL, base);
  }
  fclose(file);
  CHECK(false);
  return 0;
}

static void is_confined(void) {
  check_what = "confinement";
  make_top();
  begin(0, false);
  // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SYS_ADMIN, SETFCAP at most.
  const uint64_t kept = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 21 | 1ULL << 31;
  CHECK((status_number("CapEff:\t", 16) & ~kept) == 0 && (status_number("CapPrm:\t", 16) & ~kept) == 0 && (status_number("CapBnd:\t", 16) & ~kept) == 0);
  CHECK(status_number("CapInh:\t", 16) == 0 && status_number("CapAmb:\t", 16) == 0 && status_number("NoNewPrivs:\t", 10) == 1);
#ifndef __SANITIZE_ADDRESS__
  CHECK(status_number("Seccomp:\t", 10) == 2);
#endif
  char path[64], root[128] = "", u[80];
  snprintf(path, sizeof path, "/proc/%d/root", worker);
  CHECK(readlink(path, root, sizeof root - 1) > 0);
  snprintf(u, sizeof u, "%s/u", top);
  CHECK(strcmp(root, u) == 0);
  snprintf(path, sizeof path, "/proc/%d/fd", worker);
  DIR *descriptors = opendir(path);
  CHECK(descriptors);
  for (const struct dirent *entry; (entry = readdir(descriptors));) CHECK(entry->d_name[0] == '.' || atoi(entry->d_name) <= 2);
  closedir(descriptors);
  stop(0);
  remove_top();
}

static void refuses_requests(void) {
  check_what = "requests";
  make_top();
  static const struct {
    uint8_t type;
    const char *bytes;
    size_t length;
  } bad[] = {{ASK_WALK, "x", 1}, {ASK_OPEN, "\1\0\0\0\0\0", 6}, {ASK_DATA, "\0\0\0\0\0\0\0\0", 8}, {ASK_WRITE_END, "", 0}, {0, "", 0}, {77, "", 0}, {ASK_READ, "\1", 1}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    begin(0, false);
    ask(bad[i].type, bad[i].bytes, bad[i].length);
    expect_error(EPROTO, "");
    stop(1);
  }
  begin(0, false);
  CHECK(write(peer, "\xff\xff\xff\xff\2", 5) == 5);
  expect_error(EMSGSIZE, "");
  stop(1);
  start(0, false);
  ask(ASK_WALK, NULL, 0);
  expect_error(EPROTO, "");
  stop(1);
  start(0, false);
  open_layer("");
  expect_error(EINVAL, "");
  stop(1);
  start(0, true);
  open_layer("/tmp");
  expect_error(EINVAL, "/tmp");
  stop(1);
  // Gone in the middle of a frame.
  begin(0, false);
  CHECK(write(peer, "\5\0\0", 3) == 3);
  stop(0);
  remove_top();
}

static void fills(void) {
  check_what = "fill";
  make_top();
  begin(0, true);
  // kind, mode, uid, gid, size, mtime, path, target, link, attributes
  static const uint8_t root[] = "\1\355\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
  static const uint8_t file[] = "\2\355\11\7\0\0\0\10\0\0\0\0\0\1\0\0\0\0\0\6\0\0\0\0\0\0\0\1\0f\0\0\0\0\1\0\6user.x\1\0\0\0v";
  static const uint8_t link[] = "\2\355\11\7\0\0\0\10\0\0\0\0\0\1\0\0\0\0\0\6\0\0\0\0\0\0\0\1\0g\0\0\1\0f\0\0";
  ask(ASK_WRITE, NULL, 0);
  ask(ASK_ENTRY, root, sizeof root - 1);
  ask(ASK_ENTRY, file, sizeof file - 1);
  ask(ASK_DATA, "\0\200\0\0\0\0\0\0hello", 13);
  ask(ASK_ENTRY, link, sizeof link - 1);
  ask(ASK_WRITE_END, NULL, 0);
  CHECK(answer() == TELL_DONE);
  struct stat f, g;
  char value[8];
  CHECK(stat("f", &f) == 0 && stat("g", &g) == 0 && f.st_ino == g.st_ino && f.st_mode == (S_IFREG | 04755) && f.st_uid == 7 && f.st_gid == 8);
  CHECK(f.st_size == 65536 && f.st_mtim.tv_sec == 0 && f.st_mtim.tv_nsec == 6 && getxattr("f", "user.x", value, sizeof value) == 1 && value[0] == 'v');
  CHECK(stat(".", &g) == 0 && g.st_mtim.tv_nsec == 5);
  stop(0);
  remove_top();
}

int main(void) {
  if (geteuid() != 0) {
    printf("skipped: the layer worker's test needs root\n");
    return 0;
  }
  signal(SIGPIPE, SIG_IGN);
  umask(0);
  // Each line has room for the longest path; what is not used is never touched.
  lines = mmap(NULL, LIST_MAX * sizeof *lines, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(lines != MAP_FAILED);
  tells_every_kind();
  tells_changes();
  tells_changes_of_many();
  tells_contents();
  does_not_follow_what_changes();
  is_confined();
  refuses_requests();
  fills();
  printf("layers are read and filled\n");
}
