#include "init/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"
#include "init/util.h"

#define IDENTITY_DIR "/run/identity"
#define RANDOM       "/dev/urandom"
#define HEX          "0123456789abcdef"

enum {
    ENTROPY_MIN = 32, /* bytes: the strength of the kernel's own key */
    ENTROPY_MAX = 512,
    MACHINE_ID_SIZE = 32,
    UUID_SIZE = 36,
};

/* ---- the clock and the random pool ---------------------------------------------------------- */

void clock_set_ns(uint64_t time_ns)
{
    struct timespec time = {.tv_sec = (time_t)(time_ns / 1000000000),
                            .tv_nsec = (long)(time_ns % 1000000000)};
    if (time_ns && clock_settime(CLOCK_REALTIME, &time) < 0)
        say(LOG_WARNING, "the clock cannot be set: %s", strerror(errno));
}

int entropy_add(const uint8_t *data, size_t size, struct error **ret_error)
{
    CLEANUP_FD int fd = open(RANDOM, O_RDONLY | O_CLOEXEC);
    size = size < ENTROPY_MAX ? size : ENTROPY_MAX;
    CLEANUP_FREE struct rand_pool_info *pool = xcalloc(1, sizeof(*pool) + size);
    pool->entropy_count = (int)size * 8;
    pool->buf_size = (int)size;
    memcpy(pool->buf, data, size);
    if (fd < 0 || ioctl(fd, RNDADDENTROPY, pool) < 0)
        return error_set(ret_error, ERROR_IO, errno, "entropy cannot be added");
    return 0;
}

/* What was added reaches the generator only with its next key, which could be a minute away. */
static int generator_reseed(struct error **ret_error)
{
    CLEANUP_FD int fd = open(RANDOM, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, RNDRESEEDCRNG) < 0)
        return error_set(ret_error, ERROR_IO, errno, "the random generator cannot be reseeded");
    return 0;
}

/* ---- the ids -------------------------------------------------------------------------------- */

/* Into the same file, which containers have bound already. */
static int id_write(const char *path, const char *id, struct error **ret_error)
{
    CLEANUP_FD int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0444);
    CLEANUP_FREE char *line = str_printf("%s\n", id);
    if (fd < 0 || pwrite(fd, line, strlen(line), 0) != (ssize_t)strlen(line))
        return error_set(ret_error, ERROR_IO, errno, "file '%s'", path);
    return 0;
}

/* A UUID of the kernel without its hyphens is what systemd's machine-id(5) asks for. */
static void machine_id_make(char ret[MACHINE_ID_SIZE + 1])
{
    CLEANUP_FREE char *uuid = file_read("/proc/sys/kernel/random/uuid", UUID_SIZE);
    size_t size = 0;
    for (const char *at = str_or(uuid, ""); *at && size < MACHINE_ID_SIZE; at++)
        if (*at != '-')
            ret[size++] = *at;
    ret[size] = 0;
}

void identity_open(void)
{
    CLEANUP_ERROR struct error *error = NULL;
    CLEANUP_FREE char *boot_id = file_read("/proc/sys/kernel/random/boot_id", UUID_SIZE);
    char machine_id[MACHINE_ID_SIZE + 1];

    machine_id_make(machine_id);
    mkdir(IDENTITY_DIR, 0755);
    if (id_write(IDENTITY_BOOT_ID, str_or(boot_id, ""), &error) < 0 ||
        id_write(IDENTITY_MACHINE_ID, machine_id, &error) < 0)
        say(LOG_WARNING, "%s", error->message);
}

static bool uuid_valid(const char *id)
{
    static const char form[] = "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh";
    if (strlen(id) != UUID_SIZE)
        return false;
    for (size_t i = 0; i < UUID_SIZE; i++)
        if (form[i] == '-' ? id[i] != '-' : !strchr(HEX, id[i]))
            return false;
    return true;
}

static int awake_check(const struct wire_awake *m, struct error **ret_error)
{
    if (m->entropy.size < ENTROPY_MIN)
        return error_set(ret_error, ERROR_INVALID, 0, "%u bytes of entropy are less than %d",
                         m->entropy.size, ENTROPY_MIN);
    if (strlen(m->machine_id) != MACHINE_ID_SIZE || m->machine_id[strspn(m->machine_id, HEX)])
        return error_set(ret_error, ERROR_INVALID, 0,
                         "machine id '%s' is not of 32 hexadecimal digits", m->machine_id);
    if (!uuid_valid(m->boot_id))
        return error_set(ret_error, ERROR_INVALID, 0, "boot id '%s' is not a UUID", m->boot_id);
    return 0;
}

int identity_change(const struct wire_awake *message, struct error **ret_error)
{
    if (awake_check(message, ret_error) < 0 ||
        entropy_add(message->entropy.data, message->entropy.size, ret_error) < 0 ||
        generator_reseed(ret_error) < 0)
        return -1;
    clock_set_ns(message->time_ns);
    if (id_write(IDENTITY_BOOT_ID, message->boot_id, ret_error) < 0)
        return -1;
    return id_write(IDENTITY_MACHINE_ID, message->machine_id, ret_error);
}
