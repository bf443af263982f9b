#pragma once

// Brings a vm up from its initramfs and returns the open virtio port. Ends the process with words on the console when it cannot, which ends the vm.
int vm_init(void);
