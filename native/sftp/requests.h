// What a client asks, carried out and answered. The numbers are those of the draft's section 3.
#pragma once
#include <limits.h>

#include "handles.h"
#include "packet.h"

enum sftp_type {
  SFTP_INIT = 1,
  SFTP_VERSION,
  SFTP_OPEN,
  SFTP_CLOSE,
  SFTP_READ,
  SFTP_WRITE,
  SFTP_LSTAT,
  SFTP_FSTAT,
  SFTP_SETSTAT,
  SFTP_FSETSTAT,
  SFTP_OPENDIR,
  SFTP_READDIR,
  SFTP_REMOVE,
  SFTP_MKDIR,
  SFTP_RMDIR,
  SFTP_REALPATH,
  SFTP_STAT,
  SFTP_RENAME,
  SFTP_READLINK,
  SFTP_SYMLINK,
  SFTP_STATUS = 101,
  SFTP_HANDLE,
  SFTP_DATA,
  SFTP_NAME,
  SFTP_ATTRS,
  SFTP_EXTENDED = 200,
  SFTP_EXTENDED_REPLY,
};

enum sftp_status { SFTP_OK, SFTP_EOF, SFTP_NO_SUCH_FILE, SFTP_PERMISSION_DENIED, SFTP_FAILURE, SFTP_BAD_MESSAGE, SFTP_OP_UNSUPPORTED = 8 };

//     new ──INIT──▶ greeted, which it stays
struct sftp_session {
  struct sftp_writer out;
  struct sftp_handles handles;
  const char *home;
  bool greeted;
};

// What a request comes to: an errno, 0 for a plain OK, or one of these, which are no errnos.
enum { SFTP_ANSWERED = -1, SFTP_AT_END = 1 << 16, SFTP_MALFORMED, SFTP_UNKNOWN };

// Takes one packet, without its length, and writes its answer; the writer has room for that. False: no client of this protocol sends it.
bool sftp_take(struct sftp_session *session, const uint8_t *packet, size_t length);

// A path, ended with a NUL; 0, an errno or SFTP_MALFORMED.
int sftp_read_path(struct sftp_reader *r, char path[PATH_MAX]);
// A NAME answer with one path and nothing about it.
int sftp_answer_path(struct sftp_session *session, uint32_t id, const char *path);
// The extended request; extended.c.
int sftp_take_extended(struct sftp_session *session, uint32_t id, struct sftp_reader *r);
void sftp_put_extensions(struct sftp_writer *w);
