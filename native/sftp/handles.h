// What the client has open. It names each by eight bytes that no later one gets again.
#pragma once
#include <dirent.h>
#include <stdint.h>

#include "packet.h"

enum { SFTP_HANDLES_MAX = 256 };

struct sftp_handle {
  int fd;    // of the file, or of the folder
  DIR *dir;  // NULL: a file
  uint32_t serial;  // 0: free
};

struct sftp_handles {
  struct sftp_handle all[SFTP_HANDLES_MAX];
  uint32_t serial;
};

// A free one or NULL; taken by giving it a file or folder and naming it.
struct sftp_handle *sftp_handle_free(struct sftp_handles *handles);
void sftp_handle_name(struct sftp_handles *handles, struct sftp_handle *handle, struct sftp_writer *w);
// NULL when nothing open is called that.
struct sftp_handle *sftp_handle_find(struct sftp_handles *handles, struct sftp_string name);
// 0 or an errno; closed in any case.
int sftp_handle_close(struct sftp_handle *handle);
void sftp_handles_close(struct sftp_handles *handles);
