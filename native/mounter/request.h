// PROTOCOL
//
// The daemon starts `mounter` as root with pipes for stdin and stdout. It writes requests and reads answers; several may be under way and answers come in
// any order. All integers are little endian and unsigned unless said otherwise. EOF on stdin ends the mounter, and with its mount namespace every mount it made.
//
// Request:  u32 length   bytes that follow, 5 to 65,536
//           u32 id       chosen by the daemon, comes back in the answer
//           u8  op       table below
//           the op's fields in this order and nothing after them
// Answer:   u32 length   bytes that follow
//           u32 id
//           i32 errno    0 is success
//           u64 value    what the op says, else 0
//           u16 length, bytes   on failure the step that failed ("pivot_root"), with the kernel's words where there are some; "" on success
//
// A path is u16 length and 1 to 4,095 bytes without NUL, absolute. A request that does not fit this ends the mounter: the daemon has lost its place.
//
//  op  name         fields                                                value on success
//   1  PROBE        path dir                                              -                  overlay of idmapped layers on dir's file system, written through
//   2  PREPARE      u32 uid base                                          -                  makes the user namespace an ATTACH with that base needs
//   3  ATTACH       u32 pid, u64 start, u32 uid base, u32 flags,          microseconds       overlay becomes the root of pid's mount namespace;
//                   u16 n (1 to 500), n paths: lower layers, topmost                         flags: 1 volatile upper
//                   first, path upper (has u/ and w/)
//   4  MOUNT_IMAGE  path image, path dir, u32 flags                       number of the      ext4 image on dir, in the mounter's namespace only;
//                                                                         loop device        flags: 1 discard, 2 noatime
//   5  UNMOUNT      path dir                                              -
//   6  RESET_UPPER  path dir                                              entries removed    empties and makes anew dir/u (0755) and dir/w (0700), owned by 0:0
//   7  SEAL         path file                                             descriptor         a sealed memfd with the file's contents: /proc/<mounter>/fd/<value>
//   8  UNSEAL       u32 descriptor                                        -
//   9  KILL         u32 pid, u64 start, u32 most ms to wait               1: was gone        SIGKILL and wait for the end; ETIMEDOUT if it has not come
//  10  RUN          u32 most ms to run, path log, u16 n (1 to 64),        exit code,         a program, with the mounts of the daemon, nothing to read and its
//                   n strings: program and arguments                      128 + signal       output appended to log; killed over its time: ETIMEDOUT
//
// A string is as a path, but need not be absolute and may be empty. RUN is here because the mounter is small: forking a large daemon takes ten times as long,
// and stands in the way of everything else it does.
//
// `start` is field 22 of /proc/<pid>/stat: a pid that has been given to somebody else meanwhile is never touched (ESRCH).
// Uid base: ids 0..65535 on disk are base..base+65535 on the host; a multiple of 65,536, at least 65,536.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { OP_PROBE = 1, OP_PREPARE, OP_ATTACH, OP_MOUNT_IMAGE, OP_UNMOUNT, OP_RESET_UPPER, OP_SEAL, OP_UNSEAL, OP_KILL, OP_RUN };
enum { REQUEST_MIN = 5, REQUEST_MAX = 65536, LOWERS_MAX = 500, ARGUMENTS_MAX = 64, PATH_BYTES_MAX = 4095, UID_COUNT = 65536 };
enum { ATTACH_VOLATILE = 1 };
enum { IMAGE_DISCARD = 1, IMAGE_NOATIME = 2 };

struct request {
  uint32_t id;
  uint8_t op;
  uint32_t pid, uid_base, flags, number;  // number: descriptor or milliseconds
  uint64_t start;
  uint16_t lower_count;
  const char *lowers[LOWERS_MAX];
  char *arguments[ARGUMENTS_MAX + 1];  // NULL behind the last
  const char *path;    // dir, file, upper or log
  const char *second;  // MOUNT_IMAGE: dir
};

// Reads what follows the length field. Paths point into `bytes`, which is changed: each moves over its own length to make room for a NUL.
bool request_decode(uint8_t *bytes, size_t length, struct request *request);
