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
//                   u16 n (1 to 500), n paths: lower layers, topmost                         again and again, before any program of a user has run in it;
//                   first, path upper (has u/ and w/)                                        flags: 1 volatile upper
//   4  MOUNT_IMAGE  path image, path dir, u32 flags                       number of the      ext4 image on dir, in the mounter's namespace only; a loop
//                                                                         loop device        device that has the image already is used again, and with it
//                                                                                            its file system; flags: 1 discard, 2 noatime, 4 read only
//   5  UNMOUNT      path dir                                              -
//   6  RESET_UPPER  path dir, u32 flags                                   entries removed    empties and makes anew dir/u (0755) and dir/w (0700), owned by
//                                                                                            0:0, and dir, if it is missing; flags: 1 keep u if it is there
//   7  SEAL         path file                                             descriptor         a sealed memfd with the file's contents: /proc/<mounter>/fd/<value>
//   8  UNSEAL       u32 descriptor                                        -
//   9  KILL         u32 pid, u64 start, u32 most ms to wait               1: was gone        SIGKILL and wait for the end; ETIMEDOUT if it has not come
//  10  RUN          u32 most ms to run, path log, u16 n (1 to 64),        exit code,         a program, with the mounts of the daemon, nothing to read and its
//                   n strings: program and arguments                      128 + signal       output appended to log; killed over its time: ETIMEDOUT
//  11  MOUNT_ROOT   path dir, u32 uid base, u32 flags, u16 n, n paths,    microseconds       overlay as for ATTACH, mounted on dir where RUN's programs see it;
//                   path upper                                                               flags: 1 volatile, 2 shifted: ids as they are on disk, files of
//                                                                                            which only owner and mode are in an upper layer (metacopy)
//  12  UNMOUNT_ROOT path dir                                              -                  there; containers started with it keep it
//  13  SHIFT        u32 uid base, path image, path dir                    inodes changed     dir/u, empty, becomes a layer over the image that gives every
//                                                                                            inode the owner it has in the range of ids, for MOUNT_ROOT shifted
//  14  NARROW_UPPER string name, u16 n (0 to 500), n paths: lower         1: something is    as RESET_UPPER that keeps u; of what u has, only the folder `name`
//                   layers, topmost first, path dir                       left to sweep      stays, the rest is moved to dir/x; with lower layers, it is made
//                                                                                            when neither u nor they have one
//  15  SWEEP_UPPER  path dir, u32 most                                    1: something is    removes at most that many entries of dir/x
//                                                                         left to sweep
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

enum { OP_PROBE = 1, OP_PREPARE, OP_ATTACH, OP_MOUNT_IMAGE, OP_UNMOUNT, OP_RESET_UPPER, OP_SEAL, OP_UNSEAL, OP_KILL, OP_RUN, OP_MOUNT_ROOT, OP_UNMOUNT_ROOT, OP_SHIFT,
       OP_NARROW_UPPER, OP_SWEEP_UPPER };
enum { REQUEST_MIN = 5, REQUEST_MAX = 65536, LOWERS_MAX = 500, ARGUMENTS_MAX = 64, PATH_BYTES_MAX = 4095, UID_COUNT = 65536 };
enum { ROOT_VOLATILE = 1, ROOT_SHIFTED = 2 };
enum { UPPER_KEEP = 1 };
enum { IMAGE_DISCARD = 1, IMAGE_NOATIME = 2, IMAGE_READ_ONLY = 4 };

struct request {
  uint32_t id;
  uint8_t op;
  uint32_t pid, uid_base, flags, number;  // number: descriptor, milliseconds or entries
  uint64_t start;
  uint16_t lower_count;
  const char *lowers[LOWERS_MAX];
  char *arguments[ARGUMENTS_MAX + 1];  // NULL behind the last
  const char *path;    // dir, file, image, upper or log
  const char *second;  // the dir of MOUNT_IMAGE, MOUNT_ROOT and SHIFT, the name of NARROW_UPPER
};

// Reads what follows the length field. Paths point into `bytes`, which is changed: each moves over its own length to make room for a NUL.
bool request_decode(uint8_t *bytes, size_t length, struct request *request);
