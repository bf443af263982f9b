// The layer worker's side of native/vectors/layer.txt: what the host sends is read, what the worker sends is written.
#define _GNU_SOURCE
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../layer/layer-request.h"
#include "../layer/tell.h"
#include "check.h"

const char *check_what = "";

static struct vector {
  char name[64];
  uint8_t bytes[1024];
  size_t length;
  bool used;
} vectors[64];
static size_t count;
static int far_end;

static void load(const char *path) {
  FILE *file = fopen(path, "r");
  char line[4096];
  CHECK(file);
  while (fgets(line, sizeof line, file)) {
    char hex[2049];
    if (*line == '#' || *line == '\n') continue;
    CHECK(count < sizeof vectors / sizeof *vectors);
    struct vector *v = &vectors[count++];
    CHECK(sscanf(line, "%63s %2048s", v->name, hex) == 2);
    for (v->length = 0; hex[2 * v->length]; v->length++) {
      unsigned byte;
      CHECK(sscanf(hex + 2 * v->length, "%2x", &byte) == 1);
      v->bytes[v->length] = (uint8_t)byte;
    }
  }
  fclose(file);
  CHECK(count > 15);
}

static struct vector *find(const char *name) {
  check_what = name;
  for (size_t i = 0; i < count; i++) {
    if (strcmp(vectors[i].name, name) != 0) continue;
    vectors[i].used = true;
    return &vectors[i];
  }
  fprintf(stderr, "no vector %s\n", name);
  exit(1);
}

// Through the wire, as the worker gets it. The payload is copied to the byte, so that the sanitizer sees any step past its end.
static struct span ask(const char *name, uint8_t type) {
  static uint8_t *copy;
  const struct vector *v = find(name);
  struct ask ask;
  CHECK(write(far_end, v->bytes, v->length) == (ssize_t)v->length);
  CHECK(wire_next(&ask) && ask.type == type && ask.payload.length == v->length - WIRE_HEADER_BYTES);
  free(copy);
  copy = malloc(ask.payload.length + 1);
  if (ask.payload.length) memcpy(copy, ask.payload.bytes, ask.payload.length);
  copy = realloc(copy, ask.payload.length ? ask.payload.length : 1);
  return span_of(copy, ask.payload.length);
}

static bool same(struct span span, const char *bytes, size_t length) { return span.length == length && memcmp(span.bytes, bytes, length) == 0; }

static bool decodes_entry(struct span payload) {
  struct new_entry e;
  uint8_t *exact = malloc(payload.length ? payload.length : 1);
  if (payload.length) memcpy(exact, payload.bytes, payload.length);
  bool good = layer_decode_entry(span_of(exact, payload.length), &e);
  free(exact);
  return good;
}

static void read_entries(void) {
  struct new_entry e;
  CHECK(layer_decode_entry(ask("host.entry-root", ASK_ENTRY), &e));
  CHECK(e.kind == KIND_DIRECTORY && e.mode == 0755 && e.uid == 0 && e.gid == 0 && e.path.length == 0 && e.mtime_ns == -1 && e.attribute_count == 0);
  struct span payload = ask("host.entry-file", ASK_ENTRY);
  CHECK(layer_decode_entry(payload, &e));
  CHECK(e.kind == KIND_FILE && e.mode == 04755 && e.uid == 1000 && e.gid == 65535 && e.size == 4294967301 && e.mtime_ns == 1763795000123456789);
  CHECK(same(e.path, "a/\xff", 3) && e.target.length == 0 && e.link_to.length == 0 && e.attribute_count == 2);
  struct layer_reader r = layer_read(e.attributes);
  struct attribute a;
  uint32_t left = e.attribute_count;
  CHECK(layer_next_attribute(&r, &left, &a) && same(a.name, "security.capability", 19) && same(a.value, "\1\0\0\2", 4));
  CHECK(layer_next_attribute(&r, &left, &a) && same(a.name, "user.x", 6) && a.value.length == 0);
  CHECK(!layer_next_attribute(&r, &left, &a) && !r.bad);
  for (size_t cut = 0; cut < payload.length; cut++) CHECK(!decodes_entry(span_of(payload.bytes, cut)));
  CHECK(layer_decode_entry(ask("host.entry-symlink", ASK_ENTRY), &e));
  CHECK(e.kind == KIND_SYMLINK && same(e.path, "l", 1) && same(e.target, "../a", 4));
  CHECK(layer_decode_entry(ask("host.entry-hard-link", ASK_ENTRY), &e));
  CHECK(e.kind == KIND_FILE && same(e.path, "b", 1) && same(e.link_to, "a/\xff", 3));
}

static void read_others(void) {
  uint32_t version;
  uint64_t offset;
  struct span span, only;
  CHECK(layer_decode_open(ask("host.open", ASK_OPEN), &version, &span, &only) && version == 1 && same(span, "/disks/7", 8) && only.length == 0);
  CHECK(layer_decode_open(ask("host.open-guest", ASK_OPEN), &version, &span, &only) && version == 1 && span.length == 0 && only.length == 0);
  struct span scoped = ask("host.open-scope", ASK_OPEN);
  CHECK(layer_decode_open(scoped, &version, &span, &only) && span.length == 0 && same(only, "workspace", 9));
  for (size_t cut = 7; cut < scoped.length; cut++) CHECK(!layer_decode_open(span_of(scoped.bytes, cut), &version, &span, &only));
  // Not more than one name.
  ((uint8_t *)(uintptr_t)scoped.bytes)[12] = '/';
  CHECK(!layer_decode_open(scoped, &version, &span, &only));
  ask("host.walk", ASK_WALK);
  ask("host.changes", ASK_CHANGES);
  struct layer_reader r = layer_read(ask("host.read", ASK_READ));
  CHECK(layer_next_path(&r, &span) && same(span, "a/\xff", 3) && layer_next_path(&r, &span) && same(span, "b", 1) && !layer_next_path(&r, &span) && !r.bad);
  ask("host.read-end", ASK_READ_END);
  ask("host.write", ASK_WRITE);
  CHECK(layer_decode_data(ask("host.data", ASK_DATA), &offset, &span) && offset == 4294967296 && same(span, "hello", 5));
  ask("host.write-end", ASK_WRITE_END);
}

static void refuse_paths(void) {
  static const struct {
    const char *path;
    size_t length;
    bool good;
  } cases[] = {{"a", 1, true}, {"a/b", 3, true}, {"...", 3, true}, {".a/..b", 6, true}, {"", 0, false}, {"/", 1, false}, {"/a", 2, false}, {"a/", 2, false},
               {"a//b", 4, false}, {".", 1, false}, {"..", 2, false}, {"a/..", 4, false}, {"../a", 4, false}, {"a/./b", 5, false}, {"a\0b", 3, false}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    check_what = cases[i].path;
    CHECK(layer_path_good(span_of(cases[i].path, cases[i].length)) == cases[i].good);
  }
  static char longest[LAYER_PATH_MAX + 2];
  for (size_t i = 0; i < sizeof longest; i++) longest[i] = i % 2 ? '/' : 'a';
  CHECK(layer_path_good(span_of(longest, LAYER_PATH_MAX)) && !layer_path_good(span_of(longest, LAYER_PATH_MAX + 2)));
  memset(longest, 'a', 256);
  CHECK(layer_path_good(span_of(longest, 255)) && !layer_path_good(span_of(longest, 256)));
}

static void refuse_attributes(void) {
  static const char *const kept[] = {"user.x", "security.capability", "system.posix_acl_access", "system.posix_acl_default", "trusted.overlay.opaque"};
  static const char *const not_kept[] = {"user.", "user", "", "trusted.overlay.origin", "trusted.x", "security.selinux", "security.capabilit", "system.posix_acl_accessx"};
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) CHECK(layer_attribute_kept(kept[i], strlen(kept[i])));
  for (size_t i = 0; i < sizeof not_kept / sizeof *not_kept; i++) CHECK(!layer_attribute_kept(not_kept[i], strlen(not_kept[i])));
}

// What was written since the last call is the vector.
static void expect(const char *name) {
  static uint8_t got[2048];
  const struct vector *v = find(name);
  wire_flush();
  ssize_t length = read(far_end, got, sizeof got);
  if (length == (ssize_t)v->length && memcmp(got, v->bytes, v->length) == 0) return;
  fprintf(stderr, "%s is written as ", name);
  for (ssize_t i = 0; i < length; i++) fprintf(stderr, "%02x", got[i]);
  fprintf(stderr, "\n");
  exit(1);
}

static void write_frames(void) {
  tell_ready();
  expect("worker.ready");
  struct attributes none = {0}, opaque = {.count = 1, .length = 28, .bytes = (uint8_t[]){22, 't', 'r', 'u', 's', 't', 'e', 'd', '.', 'o', 'v', 'e', 'r', 'l', 'a', 'y', '.', 'o', 'p', 'a', 'q', 'u', 'e', 1, 0, 0, 0, 'y'}};
  struct told root = {.kind = KIND_DIRECTORY, .mode = 0755, .links = 2, .size = 4096, .inode = 2, .mtime_ns = 1, .ctime_ns = 1763795000123456789};
  struct told link = {.kind = KIND_SYMLINK, .mode = 0777, .uid = 1000, .gid = 4294967294, .links = 1, .size = 4, .inode = 1ULL << 40, .mtime_ns = -1, .ctime_ns = 5};
  link.path = span_of("\xff", 1);
  link.target = span_of("../a", 4);
  tell_present(&root, &opaque, false);
  tell_present(&link, &none, false);
  expect("worker.entries");
  tell_present(&link, &none, true);
  tell_removed(span_of("\xff" "b/c", 4));
  expect("worker.changed");
  wire_begin(TELL_DATA, 9);
  wire_put(3, 4);
  wire_put_bytes("hello", 5);
  expect("worker.data");
  tell_hole(3, 1099511627776);
  expect("worker.hole");
  tell_end(3, &(struct stat){.st_ino = 12, .st_size = 1099511627781, .st_mtim = {1763795000, 123456789}, .st_ctim = {-1, 999999999}});
  expect("worker.end");
  tell_missing(4);
  expect("worker.missing");
  tell_done();
  expect("worker.done");
  // It ends when the host closes, of which it must hold no copy.
  pid_t failing = fork();
  if (failing == 0) {
    close(far_end);
    wire_fail(28, "write", span_of("a/\xff", 3));
  }
  expect("worker.error");
  close(far_end);
  CHECK(waitpid(failing, NULL, 0) == failing);
}

int main(int argc, char **argv) {
  int ends[2];
  CHECK(argc == 2 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  load(argv[1]);
  wire_start(ends[0]);
  far_end = ends[1];
  read_entries();
  read_others();
  refuse_paths();
  refuse_attributes();
  write_frames();
  for (size_t i = 0; i < count; i++) {
    check_what = vectors[i].name;
    CHECK(vectors[i].used);
  }
  printf("%zu vectors of layers hold\n", count);
}
