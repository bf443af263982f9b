// The SFTP server as a client has it: packets through pipes to a child that serves a folder of its own.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../sftp/attributes.h"
#include "../sftp/requests.h"
#include "../sftp/sftp.h"
#include "../tree/remove-tree.h"
#include "check.h"

const char *check_what = "";

static char top[] = "/tmp/sftp-test-XXXXXX";
static int to_server, from_server;
static pid_t server;

// The packet being written, and the last one received.
static uint8_t asked[SFTP_PACKET_MAX + 64], answer[SFTP_PACKET_MAX];
static size_t asked_length;
static struct sftp_reader answered;
static uint32_t last_id;

static void start(const char *home) {
  int in[2], out[2];
  CHECK(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
  server = fork();
  CHECK(server >= 0);
  if (server == 0) {
    close(in[1]);
    close(out[0]);
    alarm(20);
    exit(sftp_serve(in[0], out[1], home));
  }
  close(in[0]);
  close(out[1]);
  to_server = in[1];
  from_server = out[0];
}

// Its exit code after the end of its input.
static int finish(void) {
  int status;
  uint8_t left[4096];
  close(to_server);
  while (read(from_server, left, sizeof left) > 0) continue;
  close(from_server);
  CHECK(waitpid(server, &status, 0) == server && WIFEXITED(status));
  return WEXITSTATUS(status);
}

static void write_all(const void *bytes, size_t length) {
  for (size_t done = 0; done < length;) {
    ssize_t wrote = write(to_server, (const uint8_t *)bytes + done, length - done);
    CHECK(wrote > 0);
    done += (size_t)wrote;
  }
}

static void read_all(void *into, size_t length) {
  for (size_t done = 0; done < length;) {
    ssize_t got = read(from_server, (uint8_t *)into + done, length - done);
    CHECK(got > 0);
    done += (size_t)got;
  }
}

static void u8(uint8_t value) { asked[asked_length++] = value; }
static void u32(uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) u8((uint8_t)(value >> shift));
}
static void u64(uint64_t value) {
  u32((uint32_t)(value >> 32));
  u32((uint32_t)value);
}
static void data(const void *bytes, size_t length) {
  u32((uint32_t)length);
  CHECK(asked_length + length <= sizeof asked);
  memcpy(asked + asked_length, bytes, length);
  asked_length += length;
}
static void text(const char *string) { data(string, strlen(string)); }

static void begin(uint8_t type) {
  asked_length = 0;
  u32(0);
  u8(type);
  if (type != SFTP_INIT) u32(++last_id);
}

static void begin_extended(const char *name) {
  begin(SFTP_EXTENDED);
  text(name);
}

static void send_it(void) {
  size_t length = asked_length;
  asked_length = 0;
  u32((uint32_t)length - 4);
  write_all(asked, length);
}

// The type of the next answer, which must be to request `id`.
static uint8_t receive(uint32_t id) {
  uint8_t head[4];
  read_all(head, 4);
  struct sftp_reader r = {head, head + 4, false};
  uint32_t length = sftp_read_u32(&r);
  CHECK(length >= 5 && length <= SFTP_PACKET_MAX);
  read_all(answer, length);
  answered = (struct sftp_reader){answer, answer + length, false};
  uint8_t type = sftp_read_u8(&answered);
  CHECK(sftp_read_u32(&answered) == id);
  return type;
}

static uint8_t ask(void) {
  send_it();
  return receive(last_id);
}

// The status of the answer, which must be one.
static uint32_t status(void) {
  CHECK(ask() == SFTP_STATUS);
  uint32_t code = sftp_read_u32(&answered);
  sftp_read_string(&answered);
  sftp_read_string(&answered);
  CHECK(!answered.bad && answered.at == answered.end);
  return code;
}

static void greet(const char *home) {
  start(home);
  begin(SFTP_INIT);
  u32(3);
  send_it();
  CHECK(receive(3) == SFTP_VERSION);
  int extensions = 0;
  for (; answered.at < answered.end; extensions++) {
    sftp_read_string(&answered);
    CHECK(sftp_read_string(&answered).length == 1);
  }
  CHECK(!answered.bad && extensions == 8);
}

struct handle {
  uint8_t bytes[8];
};

static struct handle take_handle(void) {
  struct handle handle;
  struct sftp_string name = sftp_read_string(&answered);
  CHECK(name.length == sizeof handle);
  memcpy(&handle, name.bytes, sizeof handle);
  return handle;
}

static void ask_open(const char *path, uint32_t flags) {
  begin(SFTP_OPEN);
  text(path);
  u32(flags);
}

static struct handle open_file(const char *path, uint32_t flags) {
  ask_open(path, flags);
  u32(0);
  CHECK(ask() == SFTP_HANDLE);
  return take_handle();
}

static uint32_t close_handle(struct handle handle) {
  begin(SFTP_CLOSE);
  data(&handle, sizeof handle);
  return status();
}

static uint32_t write_at(struct handle handle, uint64_t offset, const void *bytes, size_t length) {
  begin(SFTP_WRITE);
  data(&handle, sizeof handle);
  u64(offset);
  data(bytes, length);
  return status();
}

static void ask_read(struct handle handle, uint64_t offset, uint32_t length) {
  begin(SFTP_READ);
  data(&handle, sizeof handle);
  u64(offset);
  u32(length);
}

static bool reads(struct handle handle, uint64_t offset, uint32_t length, const char *wanted) {
  ask_read(handle, offset, length);
  return ask() == SFTP_DATA && sftp_string_is(sftp_read_string(&answered), wanted);
}

static uint32_t on_path(uint8_t type, const char *path) {
  begin(type);
  text(path);
  return status();
}

static uint32_t make_folder(const char *path) {
  begin(SFTP_MKDIR);
  text(path);
  u32(0);
  return status();
}

static uint32_t on_paths(uint8_t type, const char *one, const char *two) {
  begin(type);
  text(one);
  text(two);
  return status();
}

static bool names(uint8_t type, const char *path, const char *wanted) {
  begin(type);
  text(path);
  return ask() == SFTP_NAME && sftp_read_u32(&answered) == 1 && sftp_string_is(sftp_read_string(&answered), wanted);
}

static void opens_files_in_every_way(void) {
  enum { R = 1, W = 2, A = 4, C = 8, T = 16, X = 32 };
  ask_open("file", R);
  u32(0);
  CHECK(status() == SFTP_NO_SUCH_FILE);
  struct handle file = open_file("file", W | C | X);
  CHECK(write_at(file, 0, "hello there", 11) == SFTP_OK);
  ask_read(file, 0, 10);
  CHECK(status() == SFTP_FAILURE && close_handle(file) == SFTP_OK && close_handle(file) == SFTP_FAILURE);
  ask_open("file", W | C | X);
  u32(0);
  CHECK(status() == SFTP_FAILURE);
  struct stat s;
  CHECK(stat("file", &s) == 0 && s.st_mode == (S_IFREG | 0644) && s.st_size == 11);

  file = open_file("file", R | W | A);
  CHECK(write_at(file, 0, "!", 1) == SFTP_OK && reads(file, 0, 100, "hello there!") && reads(file, 6, 3, "the") && reads(file, 3, 0, ""));
  ask_read(file, 12, 1);
  CHECK(status() == SFTP_EOF);
  ask_read(file, (uint64_t)1 << 63, 1);
  CHECK(status() == SFTP_FAILURE && close_handle(file) == SFTP_OK);
  file = open_file("file", R | W | T);
  // Far beyond 32 bits, and what cannot be.
  CHECK(write_at(file, 5000000000, "far", 3) == SFTP_OK && reads(file, 5000000000, 9, "far") && write_at(file, INT64_MAX, "x", 1) == SFTP_FAILURE);
  CHECK(close_handle(file) == SFTP_OK);

  // A file gets its attributes as it is made; one that is there keeps its own.
  for (int turn = 0; turn < 2; turn++) {
    ask_open("made", W | C);
    u32(SFTP_ATTR_SIZE | SFTP_ATTR_MODE | SFTP_ATTR_TIMES | 0x80000000);
    u64(turn ? 50 : 5);
    u32(turn ? 0777 : 0600);
    u32(1000);
    u32(turn ? 3000 : 2000);
    u32(1);
    text("key");
    text("value");
    CHECK(ask() == SFTP_HANDLE);
    CHECK(close_handle(take_handle()) == SFTP_OK);
    CHECK(stat("made", &s) == 0 && s.st_mode == (S_IFREG | 0600) && s.st_size == 5 && s.st_mtime == 2000 && s.st_atime == 1000);
  }
  // Nothing that blocks.
  CHECK(mkfifo("fifo", 0600) == 0);
  file = open_file("fifo", R);
  ask_read(file, 0, 10);
  CHECK(status() == SFTP_FAILURE && close_handle(file) == SFTP_OK);
  CHECK(unlink("file") == 0 && unlink("made") == 0 && unlink("fifo") == 0);
}

static void moves_large_pieces_and_keeps_their_order(void) {
  static uint8_t bytes[SFTP_DATA_MAX];
  for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 7 + i / 251);
  struct handle file = open_file("large", 1 | 2 | 8);
  CHECK(write_at(file, 0, bytes, sizeof bytes) == SFTP_OK && write_at(file, sizeof bytes, bytes, sizeof bytes) == SFTP_OK);
  // More is asked for than an answer holds; and everything before the first answer is read.
  uint32_t first = last_id + 1;
  for (int i = 0; i < 20; i++) {
    ask_read(file, (uint64_t)i, UINT32_MAX);
    send_it();
  }
  for (uint32_t i = 0; i < 20; i++) {
    CHECK(receive(first + i) == SFTP_DATA);
    struct sftp_string got = sftp_read_string(&answered);
    CHECK(got.length == sizeof bytes && memcmp(got.bytes, bytes + i, sizeof bytes - i) == 0);
  }
  CHECK(close_handle(file) == SFTP_OK && on_path(SFTP_REMOVE, "large") == SFTP_OK && on_path(SFTP_REMOVE, "large") == SFTP_NO_SUCH_FILE);
}

static void lists_folders(void) {
  CHECK(make_folder("many") == SFTP_OK && make_folder("many") == SFTP_FAILURE);
  char name[300];
  for (int i = 0; i < 500; i++) {
    snprintf(name, sizeof name, "many/%0200d\xff \n", i);
    int fd = open(name, O_WRONLY | O_CREAT, 0600);
    CHECK(fd >= 0 && close(fd) == 0);
  }
  CHECK(symlink("nowhere", "many/link") == 0);
  begin(SFTP_OPENDIR);
  text("many");
  CHECK(ask() == SFTP_HANDLE);
  struct handle folder = take_handle();
  int found = 0, links = 0, answers = 0;
  for (;; answers++) {
    begin(SFTP_READDIR);
    data(&folder, sizeof folder);
    if (ask() == SFTP_STATUS) break;
    uint32_t count = sftp_read_u32(&answered);
    CHECK(count > 0 && count <= 128);
    for (; count > 0; count--, found++) {
      struct sftp_string short_name = sftp_read_string(&answered), line = sftp_read_string(&answered);
      CHECK(line.length > short_name.length && memcmp(line.bytes + line.length - short_name.length, short_name.bytes, short_name.length) == 0);
      CHECK(sftp_read_u32(&answered) == 15);
      sftp_read_u64(&answered);
      sftp_read_u64(&answered);
      uint32_t mode = sftp_read_u32(&answered);
      sftp_read_u64(&answered);
      links += S_ISLNK(mode) && sftp_string_is(short_name, "link") && memcmp(line.bytes, "lrwxrwxrwx   1 ", 15) == 0;
    }
    CHECK(!answered.bad && answered.at == answered.end);
  }
  CHECK(sftp_read_u32(&answered) == SFTP_EOF && found == 503 && links == 1 && answers == 4);
  // A folder is no file, and a file no folder.
  ask_read(folder, 0, 10);
  CHECK(status() == SFTP_FAILURE && close_handle(folder) == SFTP_OK && on_path(SFTP_RMDIR, "many") == SFTP_FAILURE);
  struct handle file = open_file("many/link", 2 | 8);
  begin(SFTP_READDIR);
  data(&file, sizeof file);
  CHECK(status() == SFTP_NO_SUCH_FILE && close_handle(file) == SFTP_OK);
  begin(SFTP_OPENDIR);
  text("many/nowhere");
  CHECK(status() == SFTP_NO_SUCH_FILE);
}

static void sets_attributes(void) {
  struct stat s;
  struct handle file = open_file("set", 1 | 2 | 8);
  CHECK(write_at(file, 0, "0123456789", 10) == SFTP_OK && symlink("set", "to-set") == 0);
  begin(SFTP_SETSTAT);
  text("to-set");
  u32(SFTP_ATTR_SIZE | SFTP_ATTR_OWNER | SFTP_ATTR_MODE | SFTP_ATTR_TIMES);
  u64(4);
  u32(geteuid());
  u32(getegid());
  u32(0104751);
  u32(4000000000);
  u32(77);
  CHECK(status() == SFTP_OK && lstat("set", &s) == 0 && s.st_size == 4 && s.st_mode == (S_IFREG | 04751) && s.st_atime == 4000000000 && s.st_mtime == 77);
  begin(SFTP_FSETSTAT);
  data(&file, sizeof file);
  u32(SFTP_ATTR_SIZE | SFTP_ATTR_MODE);
  u64(6);
  u32(0600);
  CHECK(status() == SFTP_OK && reads(file, 0, 10, "0123\0\0") == false && fstatat(AT_FDCWD, "set", &s, 0) == 0 && s.st_size == 6 && s.st_mode == (S_IFREG | 0600));
  begin_extended("lsetstat@openssh.com");
  text("to-set");
  u32(SFTP_ATTR_TIMES);
  u32(5);
  u32(6);
  CHECK(status() == SFTP_OK && lstat("to-set", &s) == 0 && s.st_mtime == 6 && stat("to-set", &s) == 0 && s.st_mtime != 6);
  begin_extended("lsetstat@openssh.com");
  text("to-set");
  u32(SFTP_ATTR_SIZE);
  u64(0);
  CHECK(status() == SFTP_FAILURE && stat("set", &s) == 0 && s.st_size == 6);

  static const uint8_t kinds[] = {SFTP_STAT, SFTP_LSTAT};
  for (int i = 0; i < 2; i++) {
    begin(kinds[i]);
    text("to-set");
    CHECK(ask() == SFTP_ATTRS && sftp_read_u32(&answered) == 15 && sftp_read_u64(&answered) == (i ? 3 : 6));
    sftp_read_u64(&answered);
    CHECK((sftp_read_u32(&answered) & S_IFMT) == (i ? S_IFLNK : S_IFREG));
  }
  begin(SFTP_FSTAT);
  data(&file, sizeof file);
  CHECK(ask() == SFTP_ATTRS && sftp_read_u32(&answered) == 15 && sftp_read_u64(&answered) == 6);
  begin_extended("fsync@openssh.com");
  data(&file, sizeof file);
  CHECK(status() == SFTP_OK);
  begin_extended("fstatvfs@openssh.com");
  data(&file, sizeof file);
  CHECK(ask() == SFTP_EXTENDED_REPLY && answered.end - answered.at == 88 && close_handle(file) == SFTP_OK);
  begin_extended("statvfs@openssh.com");
  text(".");
  CHECK(ask() == SFTP_EXTENDED_REPLY && sftp_read_u64(&answered) > 0);
  begin_extended("limits@openssh.com");
  CHECK(ask() == SFTP_EXTENDED_REPLY && sftp_read_u64(&answered) == SFTP_PACKET_MAX && sftp_read_u64(&answered) == SFTP_DATA_MAX);
  begin_extended("nobody@nowhere");
  CHECK(status() == SFTP_OP_UNSUPPORTED);
  begin(77);
  CHECK(status() == SFTP_OP_UNSUPPORTED);
}

static void renames_and_links(void) {
  struct stat s;
  CHECK(close_handle(open_file("one", 2 | 8)) == SFTP_OK && close_handle(open_file("two", 2 | 8)) == SFTP_OK);
  CHECK(on_paths(SFTP_RENAME, "one", "two") == SFTP_FAILURE && on_paths(SFTP_RENAME, "one", "three") == SFTP_OK && access("one", F_OK) != 0);
  begin_extended("posix-rename@openssh.com");
  text("three");
  text("two");
  CHECK(status() == SFTP_OK && access("three", F_OK) != 0);
  begin_extended("hardlink@openssh.com");
  text("two");
  text("four");
  CHECK(status() == SFTP_OK && stat("four", &s) == 0 && s.st_nlink == 2);
  CHECK(on_paths(SFTP_SYMLINK, "some where", "points") == SFTP_OK && names(SFTP_READLINK, "points", "some where") && on_path(SFTP_READLINK, "two") == SFTP_FAILURE);
}

static void finds_real_paths(void) {
  char wanted[PATH_MAX];
  static const char *const paths[][2] = {
      {"", ""},          {".", ""},           {"two", "/two"},       {"no/such/../file", "/no/file"}, {"points", "/points"},
      {"many/..", ""},   {"folder/x", "/many/x"}, {"./no//such/", "/no/such"}, {"two/below", "/two/below"},
  };
  CHECK(symlink("many", "folder") == 0);
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    check_what = paths[i][0];
    snprintf(wanted, sizeof wanted, "%s%s", top, paths[i][1]);
    CHECK(names(SFTP_REALPATH, paths[i][0], wanted));
  }
  check_what = "real paths";
  CHECK(names(SFTP_REALPATH, "/", "/") && names(SFTP_REALPATH, "/..", "/") && names(SFTP_REALPATH, "//no/../..//x/", "/x"));
  snprintf(wanted, sizeof wanted, "%s/new", top);
  begin_extended("expand-path@openssh.com");
  text("~/new");
  CHECK(ask() == SFTP_NAME && sftp_read_u32(&answered) == 1 && sftp_string_is(sftp_read_string(&answered), wanted));
  begin_extended("expand-path@openssh.com");
  text("~nobody-has-this-name/x");
  CHECK(status() == SFTP_NO_SUCH_FILE);
  // The longest path there is, of parts that do not exist and with steps up.
  char longest[PATH_MAX];
  for (size_t i = 0; i < sizeof longest - 1; i++) longest[i] = "/a/.."[i % 5];
  longest[sizeof longest - 1] = 0;
  begin(SFTP_REALPATH);
  text(longest);
  CHECK(ask() == SFTP_NAME);
}

static void refuses_what_is_malformed(void) {
  char huge[PATH_MAX + 1];
  memset(huge, 'x', sizeof huge - 1);
  huge[sizeof huge - 1] = 0;
  CHECK(on_path(SFTP_STAT, huge) == SFTP_FAILURE && on_path(SFTP_STAT, "") == SFTP_NO_SUCH_FILE);
  begin(SFTP_STAT);
  data("a\0b", 3);
  CHECK(status() == SFTP_FAILURE);
  static const uint8_t types[] = {SFTP_OPEN, SFTP_CLOSE, SFTP_READ, SFTP_WRITE, SFTP_LSTAT, SFTP_FSTAT, SFTP_SETSTAT, SFTP_FSETSTAT, SFTP_OPENDIR, SFTP_READDIR,
                                  SFTP_REMOVE, SFTP_MKDIR, SFTP_RMDIR, SFTP_REALPATH, SFTP_STAT, SFTP_RENAME, SFTP_READLINK, SFTP_SYMLINK, SFTP_EXTENDED};
  for (size_t i = 0; i < sizeof types; i++) {
    begin(types[i]);
    u32(UINT32_MAX);
    CHECK(status() == SFTP_BAD_MESSAGE);
    begin(types[i]);
    CHECK(status() == SFTP_BAD_MESSAGE);
  }
  begin(SFTP_SETSTAT);
  text("two");
  u32(0x80000000);
  u32(UINT32_MAX);
  CHECK(status() == SFTP_BAD_MESSAGE);
  static const char *const handles[] = {"", "1234567", "\xff\xff\xff\xff\xff\xff\xff\xff", "12345678", "123456789"};
  for (size_t i = 0; i < sizeof handles / sizeof *handles; i++) {
    begin(SFTP_CLOSE);
    text(handles[i]);
    CHECK(status() == SFTP_FAILURE);
  }
}

static void bounds_its_handles(void) {
  static struct handle open_ones[SFTP_HANDLES_MAX];
  for (int i = 0; i < SFTP_HANDLES_MAX; i++) open_ones[i] = open_file("two", 1);
  ask_open("two", 1);
  u32(0);
  CHECK(status() == SFTP_FAILURE);
  CHECK(close_handle(open_ones[9]) == SFTP_OK);
  struct handle again = open_file("two", 1);
  CHECK(memcmp(&again, &open_ones[9], sizeof again) != 0 && close_handle(open_ones[9]) == SFTP_FAILURE && close_handle(again) == SFTP_OK);
}

// A fresh server that is sent these bytes: how it ends.
static int ends_with(const void *bytes, size_t length) {
  start(top);
  write_all(bytes, length);
  return finish();
}

static void ends_as_it_should(void) {
  CHECK(finish() == 0);
  CHECK(ends_with("", 0) == 0 && ends_with("\0\0\0\5\1\0\0\0\3", 9) == 0);
  CHECK(ends_with("\0\0\0\5\1\0\0", 7) == EPROTO);              // in the middle of a packet
  CHECK(ends_with("\0\0\0\0", 4) == EPROTO);                    // nothing in it
  CHECK(ends_with("\0\4\0\1", 4) == EPROTO);                    // 256 KiB and a byte
  CHECK(ends_with("\0\0\0\4\1\0\0\3", 8) == EPROTO);            // no room for a number
  CHECK(ends_with("\0\0\0\5\21\0\0\0\1", 9) == EPROTO);         // before INIT
  CHECK(ends_with("\0\0\0\5\1\0\0\0\3\0\0\0\5\1\0\0\0\3", 18) == EPROTO);
  // A home that is not there.
  greet("/no/such/home");
  CHECK(names(SFTP_REALPATH, ".", "/") && finish() == 0);
  // A client that is gone.
  start(top);
  close(from_server);
  from_server = open("/dev/null", O_RDONLY | O_CLOEXEC);
  CHECK(write(to_server, "\0\0\0\5\1\0\0\0\3", 9) == 9);
  CHECK(finish() == EPIPE);
}

int main(void) {
  static const struct {
    const char *name;
    void (*run)(void);
  } tests[] = {
      {"opens files in every way", opens_files_in_every_way},
      {"moves large pieces and keeps their order", moves_large_pieces_and_keeps_their_order},
      {"lists folders", lists_folders},
      {"sets attributes", sets_attributes},
      {"renames and links", renames_and_links},
      {"finds real paths", finds_real_paths},
      {"refuses what is malformed", refuses_what_is_malformed},
      {"bounds its handles", bounds_its_handles},
      {"ends as it should", ends_as_it_should},
  };
  signal(SIGPIPE, SIG_IGN);
  alarm(60);
  CHECK(mkdtemp(top) && chdir(top) == 0);
  greet(top);
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
    check_what = tests[i].name;
    tests[i].run();
  }
  uint64_t removed = 0;
  int fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  CHECK(fd >= 0 && remove_tree_contents(fd, &removed) == 0 && rmdir(top) == 0);
  printf("%zu tests of the SFTP server hold\n", sizeof tests / sizeof *tests);
}
