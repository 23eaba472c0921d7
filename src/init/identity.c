#include "init/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"
#include "init/util.h"

#define IDENTITY_DIR "/run/identity"
#define HEX          "0123456789abcdef"

enum {
    ENTROPY_MIN = 32, /* bytes: the strength of the kernel's own key */
    ENTROPY_MAX = 512,
    MACHINE_ID_SIZE = 32,
    UUID_SIZE = 36,
};

static int random_fd = -1;
static char *boot_id, *machine_id; /* files in memory */

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
    _Alignas(struct rand_pool_info) uint8_t room[sizeof(struct rand_pool_info) + ENTROPY_MAX];
    struct rand_pool_info *pool = (void *)room;

    size = size < ENTROPY_MAX ? size : ENTROPY_MAX;
    pool->entropy_count = (int)size * 8;
    pool->buf_size = (int)size;
    memcpy(room + sizeof(*pool), data, size);
    if (ioctl(random_fd, RNDADDENTROPY, pool) < 0)
        return error_set(ret_error, ERROR_IO, errno, "entropy cannot be added");
    return 0;
}

/* What was added reaches the generator only with its next key, which could be a minute away. */
static int generator_reseed(struct error **ret_error)
{
    if (ioctl(random_fd, RNDRESEEDCRNG) < 0)
        return error_set(ret_error, ERROR_IO, errno, "the random generator cannot be reseeded");
    return 0;
}

/* ---- the ids -------------------------------------------------------------------------------- */

/* Containers have the file bound already, and see what is written into its memory: a clone then
 * changes it without a system call. */
static void id_write(char *memory, const char *id)
{
    size_t size = strlen(id);
    memcpy(memory, id, size);
    memory[size] = '\n';
}

/* A file of one line, mapped; NULL if that cannot be. */
static char *id_open(const char *path, size_t size)
{
    CLEANUP_FD int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0444);
    if (fd < 0 || ftruncate(fd, (off_t)size + 1) < 0)
        return NULL;
    void *memory = mmap(NULL, size + 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return memory == MAP_FAILED ? NULL : memory;
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
    CLEANUP_FREE char *own_boot_id = file_read("/proc/sys/kernel/random/boot_id", UUID_SIZE);
    char own_machine_id[MACHINE_ID_SIZE + 1];

    random_fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    mkdir(IDENTITY_DIR, 0755);
    boot_id = id_open(IDENTITY_BOOT_ID, UUID_SIZE);
    machine_id = id_open(IDENTITY_MACHINE_ID, MACHINE_ID_SIZE);
    if (random_fd < 0 || !boot_id || !machine_id) {
        say(LOG_ERR, "the guest has no identity: %s", strerror(errno));
        return;
    }
    machine_id_make(own_machine_id);
    id_write(boot_id, str_or(own_boot_id, ""));
    id_write(machine_id, own_machine_id);
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
    if (!boot_id || !machine_id)
        return error_set(ret_error, ERROR_IO, 0, "the guest has no identity to change");
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
    id_write(boot_id, message->boot_id);
    id_write(machine_id, message->machine_id);
    return 0;
}
