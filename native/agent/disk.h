// The disk that holds what a vm's job writes, and the root composed from it and the image.
//
//     none ──attach──▶ attached ──freeze──▶ frozen ──thaw──▶ attached ──detach──▶ none
#pragma once
#include "bytes.h"

// `scope`: of what the disk has, only this folder at the top stays, made if need be; NULL: everything does.
int disk_attach(const char *serial, const uint8_t uuid[16], const char *scope);
int disk_detach(void);
// Answers the request when the file system is frozen.
void disk_freeze(uint32_t request, struct bytes *out);
int disk_thaw(void);
bool disk_is_frozen(void);
// A fresh boot_id, shown in the composed root now or as soon as there is one.
int disk_renew_boot_id(void);

// Keeps some room on the attached disk for the next start, unless it is full.
void disk_keep_spare(void);
// The device node of the virtio disk with this serial number; 0 or an errno.
int disk_find(const char *serial, char device[32]);
