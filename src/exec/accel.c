#include "exec/accel.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/str.h"
#include "loop/loop.h"

enum { CPUINFO_LINE_MAX = 8192 };

static bool cpu_virtualises(const char *cpuinfo)
{
    char line[CPUINFO_LINE_MAX];
    bool found = false;
    FILE *f = fopen(cpuinfo, "re");
    while (f && !found && fgets(line, sizeof(line), f))
        if (str_starts(line, "flags"))
            found = strstr(line, " vmx") || strstr(line, " svm");
    if (f)
        fclose(f);
    return found;
}

/* A paravirtual KVM opens well and runs no stock kernel: only a CPU that shows vmx or svm counts.
 */
const char *accel_choose(const char *kvm, const char *cpuinfo, const char *user,
                         const char **ret_reason)
{
    int fd = open(kvm, O_RDWR | O_CLOEXEC);
    *ret_reason = "/dev/kvm cannot be opened";
    if (fd < 0)
        return "tcg";
    close(fd);
    *ret_reason = "the user that QEMU runs as (qemu_user) may not use /dev/kvm";
    if (!str_empty(user) && child_user_may_use(user, kvm, NULL) < 0)
        return "tcg";
    *ret_reason = "the CPU shows neither vmx nor svm";
    if (!cpu_virtualises(cpuinfo))
        return "tcg";
    *ret_reason = "/dev/kvm opens, and the CPU can virtualise";
    return "kvm";
}
