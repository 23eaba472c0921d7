/* Whether guests run by KVM or by emulation, as this host allows. */
#ifndef HUSK_EXEC_ACCEL_H
#define HUSK_EXEC_ACCEL_H

#define ACCEL_KVM     "/dev/kvm"
#define ACCEL_CPUINFO "/proc/cpuinfo"

/* "kvm" or "tcg", as these files show, for a QEMU that runs as `user` ("": as we are); why, in a
 * few words. */
const char *accel_choose(const char *kvm, const char *cpuinfo, const char *user,
                         const char **ret_reason);

#endif
