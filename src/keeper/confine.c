#include "keeper/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/str.h"

/* To become qemu_user and to end what runs as it; and to reach a root that lies in a directory of
 * somebody else's, or is his. */
#define CONFINE_KEPT                                                                               \
    (1ULL << CAP_SETUID | 1ULL << CAP_SETGID | 1ULL << CAP_KILL | 1ULL << CAP_DAC_OVERRIDE)

/* To mount, and for overlayfs, which does what it does as who mounted it; and for virtiofsd, to
 * make files as the guest asks for them, and to give up the rest. */
#define CONFINE_SHARE                                                                              \
    (1ULL << CAP_SYS_ADMIN | 1ULL << CAP_CHOWN | 1ULL << CAP_DAC_OVERRIDE |                        \
     1ULL << CAP_DAC_READ_SEARCH | 1ULL << CAP_FOWNER | 1ULL << CAP_FSETID | 1ULL << CAP_SETUID |  \
     1ULL << CAP_SETGID | 1ULL << CAP_SETPCAP | 1ULL << CAP_MKNOD | 1ULL << CAP_SETFCAP)

enum { CAPABILITIES_MAX = 64 };

/* ---- the world: landlock(7) ---------------------------------------------------------------------
 */

/* Rights that younger kernels know. Headers are of the machine that built this. */
#define RIGHT_REFER    (1ULL << 13) /* from the second version of the interface */
#define RIGHT_TRUNCATE (1ULL << 14) /* from the third */

#define RIGHTS_OF_FILES LANDLOCK_ACCESS_FS_WRITE_FILE
#define RIGHTS_OF_DIRECTORIES                                                                      \
    (LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |                              \
     LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |    \
     LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK | \
     LANDLOCK_ACCESS_FS_MAKE_SYM)

static const char *const devices[] = {
    "/dev/null", "/dev/zero", "/dev/full", "/dev/kvm", "/dev/net/tun", "/dev/vhost-net",
};

#define RIGHTS_OF_NET (1ULL << 0 | 1ULL << 1) /* from the fourth: to bind and to connect by TCP */
#define SCOPES        (1ULL << 0 | 1ULL << 1) /* from the sixth: abstract sockets, signals */

struct ruleset {
    uint64_t files, net, scopes;
};

/* What this kernel can forbid. All QEMUs may have one user: no one of them shall signal another. */
static struct ruleset rights_known(size_t *ret_size)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    struct ruleset rights = {.files = version > 0 ? RIGHTS_OF_FILES | RIGHTS_OF_DIRECTORIES : 0};

    if (version >= 2)
        rights.files |= RIGHT_REFER;
    if (version >= 3)
        rights.files |= RIGHT_TRUNCATE;
    if (version >= 4)
        rights.net = RIGHTS_OF_NET;
    if (version >= 6)
        rights.scopes = SCOPES;
    *ret_size = version >= 6   ? sizeof(rights)
                : version >= 4 ? offsetof(struct ruleset, scopes)
                               : offsetof(struct ruleset, net);
    return rights;
}

static int rule_add(int ruleset, const char *path, uint64_t rights, struct error **ret_error)
{
    struct landlock_path_beneath_attr rule = {.allowed_access = rights};

    rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
    if (rule.parent_fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    if (rule.parent_fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "open '%s'", path);
    long rc = syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
    int err = errno;
    close(rule.parent_fd);
    return rc < 0 ? error_set(ret_error, ERROR_IO, err, "allow '%s'", path) : 0;
}

static int rules_add(int ruleset, uint64_t rights, char *const *directories,
                     struct error **ret_error)
{
    if (rule_add(ruleset, ".", rights, ret_error) < 0)
        return -1;
    STRV_FOREACH(directory, directories)
        if (**directory && rule_add(ruleset, *directory, rights, ret_error) < 0)
            return -1;
    for (size_t i = 0; i < ARRAY_SIZE(devices); i++)
        if (rule_add(ruleset, devices[i], rights & (RIGHTS_OF_FILES | RIGHT_TRUNCATE), ret_error) <
            0)
            return -1;
    return 0;
}

static int world_seal(char *const *directories, struct error **ret_error)
{
    size_t size;
    const struct ruleset rights = rights_known(&size);

    if (!rights.files)
        return error_set(ret_error, ERROR_UNSUPPORTED, errno, "the kernel has no Landlock");
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &rights, size, 0);
    if (ruleset < 0)
        return error_set(ret_error, ERROR_IO, errno, "make a ruleset");
    int rc = rules_add(ruleset, rights.files, directories, ret_error);
    if (rc == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
        rc = error_set(ret_error, ERROR_IO, errno, "restrict the process");
    close(ruleset);
    return rc;
}

int confine_rules(int *ret_fd, struct error **ret_error)
{
    size_t size;
    const struct ruleset rights = rights_known(&size);

    *ret_fd = rights.files ? (int)syscall(SYS_landlock_create_ruleset, &rights, size, 0) : -1;
    if (rights.files && *ret_fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "make a ruleset");
    return 0;
}

/* ---- capabilities --------------------------------------------------------------------------- */

/* The bounding set first: dropping from it is itself a privilege. */
static int capabilities_keep(uint64_t kept, const char **ret_what)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2] = {0};

    *ret_what = "drop a capability";
    for (int capability = 0; capability < CAPABILITIES_MAX; capability++) {
        if (kept >> capability & 1 || prctl(PR_CAPBSET_DROP, capability) == 0)
            continue;
        if (errno == EINVAL)
            break; /* the kernel knows no more */
        return -1;
    }
    *ret_what = "read the capabilities";
    if (syscall(SYS_capget, &header, sets) < 0)
        return -1;
    for (int i = 0; i < 2; i++) {
        sets[i].permitted &= (uint32_t)(kept >> 32 * i);
        sets[i].effective &= sets[i].permitted;
        sets[i].inheritable = 0;
    }
    *ret_what = "drop capabilities";
    return (int)syscall(SYS_capset, &header, sets);
}

static int capabilities_drop(struct error **ret_error)
{
    const char *what;

    if (capabilities_keep(CONFINE_KEPT, &what) < 0)
        return error_set(ret_error, ERROR_IO, errno, "%s", what);
    return 0;
}

int confine_share(void)
{
    const char *what;

    return capabilities_keep(CONFINE_SHARE, &what);
}

int confine(char *const *directories, struct error **ret_error)
{
    CLEANUP_ERROR struct error *error = NULL, *later = NULL;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_set(ret_error, ERROR_IO, errno, "give up new privileges");
    world_seal(directories, &error);
    if (geteuid() == 0)
        capabilities_drop(error ? &later : &error);
    return error ? error_move(ret_error, &error) : 0;
}
