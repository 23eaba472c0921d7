/* husk-qemu.so: loaded into the QEMU of a clone, which gives memory of the guest back by it.
 *
 * QEMU gives back a page of a file's private mapping in two steps: it punches a hole into the file,
 * and then drops the private page (madvise). The file is the template's memory, the same for all
 * clones, and sealed: the hole is refused, and QEMU does not come to the second step. So a hole in
 * a sealed file succeeds here by leaving the file alone, and the guest's page is the template's
 * again. All other holes are punched: those of disks must be.
 *
 * This looks at the very file that would be punched, in the process that asks, and has no state:
 * nothing can change between the look and the answer but what QEMU changes itself, and no answer
 * of ours can make a hole in a sealed file.
 */
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
    int seals = mode & FALLOC_FL_PUNCH_HOLE ? fcntl(fd, F_GET_SEALS) : -1; /* -1: of no memfd */
    if (seals >= 0 && seals & F_SEAL_WRITE)
        return 0;
    return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}
