/* Whether guests run by KVM or by emulation, as this host allows. */
#ifndef HUSK_EXEC_ACCEL_H
#define HUSK_EXEC_ACCEL_H

/* "kvm" or "tcg"; why, in a few words. */
const char *accel_choose(const char **ret_reason);

#endif
