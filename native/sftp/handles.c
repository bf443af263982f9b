#include "handles.h"

#include <errno.h>
#include <unistd.h>

enum { NAME_BYTES = 8 };

struct sftp_handle *sftp_handle_free(struct sftp_handles *handles) {
  for (int i = 0; i < SFTP_HANDLES_MAX; i++) {
    if (!handles->all[i].serial) return &handles->all[i];
  }
  return NULL;
}

void sftp_handle_name(struct sftp_handles *handles, struct sftp_handle *handle, struct sftp_writer *w) {
  if (++handles->serial == 0) handles->serial = 1;
  handle->serial = handles->serial;
  sftp_put_u32(w, NAME_BYTES);
  sftp_put_u32(w, (uint32_t)(handle - handles->all));
  sftp_put_u32(w, handle->serial);
}

struct sftp_handle *sftp_handle_find(struct sftp_handles *handles, struct sftp_string name) {
  struct sftp_reader r = {name.bytes, name.bytes + name.length, name.length != NAME_BYTES};
  uint32_t index = sftp_read_u32(&r), serial = sftp_read_u32(&r);
  if (r.bad || index >= SFTP_HANDLES_MAX || serial == 0 || handles->all[index].serial != serial) return NULL;
  return &handles->all[index];
}

int sftp_handle_close(struct sftp_handle *handle) {
  int error = (handle->dir ? closedir(handle->dir) : close(handle->fd)) == 0 ? 0 : errno;
  *handle = (struct sftp_handle){0};
  return error;
}

void sftp_handles_close(struct sftp_handles *handles) {
  for (int i = 0; i < SFTP_HANDLES_MAX; i++) {
    if (handles->all[i].serial) sftp_handle_close(&handles->all[i]);
  }
}
