#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/fs.h>

#include "base/str.h"
#include "disk/dm.h"
#include "disk/path.h"

enum {
    THIN_MAX = (1 << 24) - 1, /* of the kernel's numbers */
    FOREIGN_MAX = 64,         /* numbers that the pool has and we do not know */
    TEXT_MAX = 16 << 10,
    FILE_MODE = 0600,
};

#define RECORD_FORMAT "husk-thin-1"

/* ---- small files ---------------------------------------------------------------------------- */

static int text_write(int fd, const char *text)
{
    size_t size = strlen(text);

    return write(fd, text, size) == (ssize_t)size && fsync(fd) == 0 ? 0 : -1;
}

/* NULL and errno; the caller frees it. */
static char *text_read(int fd)
{
    CLEANUP_FREE char *text = xcalloc(1, TEXT_MAX + 1);
    ssize_t n = pread(fd, text, TEXT_MAX, 0);

    return n < 0 ? NULL : take(text);
}

static int directory_sync(const char *path)
{
    const char *slash = strrchr(path, '/');
    CLEANUP_FREE char *parent = xstrndup(path, (size_t)(slash - path));
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = fd < 0 ? -1 : fsync(fd);

    if (fd >= 0)
        close(fd);
    return result;
}

/* ---- records -------------------------------------------------------------------------------- */

int dm_record_write(const char *path, const struct dm_record *record, struct error **ret_error)
{
    CLEANUP_FREE char *fresh = str_printf("%s.new", path);
    CLEANUP_FREE char *text =
        str_printf(RECORD_FORMAT " %llu %llu %llu\n", (unsigned long long)record->thin,
                   (unsigned long long)record->sectors, (unsigned long long)record->base_bytes);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    int result = fd < 0 ? -1 : text_write(fd, text);

    if (result == 0)
        result = rename(fresh, path);
    if (result == 0)
        result = directory_sync(path);
    if (result < 0)
        error_set(ret_error, ERROR_IO, errno, "write '%s'", path);
    if (fd >= 0)
        close(fd);
    if (result < 0)
        unlink(fresh);
    return result;
}

int dm_record_read(const char *path, struct dm_record *ret, struct error **ret_error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int end = 0;

    if (fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "open '%s'", path);
    CLEANUP_FREE char *text = text_read(fd);
    int err = errno;
    close(fd);
    if (!text)
        return error_set(ret_error, ERROR_IO, err, "read '%s'", path);
    int n = sscanf(text, RECORD_FORMAT " %" SCNu64 " %" SCNu64 " %" SCNu64 "%n", &ret->thin,
                   &ret->sectors, &ret->base_bytes, &end);
    if (n == 3 && strcmp(text + end, "\n") == 0 && ret->thin <= THIN_MAX && ret->sectors > 0)
        return 0;
    return error_set(ret_error, ERROR_CORRUPT, 0, "'%s' does not name a thin device", path);
}

/* ---- entries -------------------------------------------------------------------------------- */

struct entry {
    uint64_t sectors;
    char *owner, *scratch; /* absolute; scratch may be "" */
};

static char *entry_path(const struct disk *disk, uint64_t thin)
{
    return str_printf("%s/devicemapper/devices/%llu", disk->root, (unsigned long long)thin);
}

static void entry_done(struct entry *entry)
{
    free(entry->owner);
    free(entry->scratch);
    *entry = (struct entry){0};
}

/* What a crash cut short names no owner, and so is dead. */
static void entry_parse(const char *text, struct entry *ret)
{
    CLEANUP_STRV char **lines = str_split(text, '\n');
    bool whole = strv_count((const char *const *)lines) == 4;

    *ret = (struct entry){0};
    if (!whole || !str_to_u64(lines[0], 1, INT64_MAX / DM_SECTOR, &ret->sectors))
        return;
    ret->owner = xstrdup(lines[1]);
    ret->scratch = xstrdup(lines[2]);
}

static bool record_names(const char *path, uint64_t thin)
{
    struct dm_record record;

    return !str_empty(path) && dm_record_read(path, &record, NULL) == 0 && record.thin == thin;
}

/* Its record moves from the scratch to the owner, never back: looked for in that order, it might
 * be missed in between. */
static bool entry_is_alive(const struct entry *entry, uint64_t thin)
{
    return record_names(entry->owner, thin) || record_names(entry->scratch, thin) ||
           record_names(entry->owner, thin);
}

static int number_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* The numbers that are entered, in order; the caller frees them. */
static uint64_t *entries_list(const struct disk *disk, size_t *ret_count)
{
    CLEANUP_FREE char *path = str_printf("%s/devicemapper/devices", disk->root);
    DIR *dir = opendir(path);
    struct dirent *item;
    uint64_t *numbers = NULL;
    size_t count = 0, room = 0;

    while (dir && (item = readdir(dir))) {
        uint64_t number;
        if (!str_to_u64(item->d_name, 0, THIN_MAX, &number))
            continue;
        if (count == room) {
            room = room ? room * 2 : 64;
            numbers = xrealloc(numbers, room * sizeof(*numbers));
        }
        numbers[count++] = number;
    }
    if (dir)
        closedir(dir);
    if (count > 0)
        qsort(numbers, count, sizeof(*numbers), number_compare);
    *ret_count = count;
    return numbers;
}

bool dm_book_is_empty(const struct disk *disk)
{
    size_t count;

    free(entries_list(disk, &count));
    return count == 0;
}

/* The least number from `from` on that is not entered. */
static uint64_t number_free(const struct disk *disk, uint64_t from)
{
    size_t count;
    CLEANUP_FREE uint64_t *numbers = entries_list(disk, &count);

    for (size_t i = 0; i < count; i++)
        if (numbers[i] == from)
            from++;
    return from;
}

/* ---- making --------------------------------------------------------------------------------- */

/* The entry is durable before the pool hears of the number. */
static int entry_write(const struct dm_pool *pool, uint64_t thin, const char *text, int *ret_lock,
                       struct error **ret_error)
{
    CLEANUP_FREE char *path = entry_path(pool->disk, thin);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);

    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && text_write(fd, text) == 0 &&
        directory_sync(path) == 0) {
        *ret_lock = fd;
        return 0;
    }
    error_set(ret_error, ERROR_IO, errno, "write '%s'", path);
    if (fd >= 0) {
        unlink(path);
        close(fd);
    }
    return -1;
}

static int pool_create(const struct dm_pool *pool, uint64_t thin, const struct dm_record *origin,
                       struct error **ret_error)
{
    CLEANUP_FREE char *message = str_printf("create_thin %llu", (unsigned long long)thin);

    if (origin)
        return dm_thin_snapshot(pool, thin, origin->thin, ret_error);
    return dm_device_message(pool->name, message, ret_error);
}

int dm_book_make(const struct dm_pool *pool, const struct dm_book_spec *spec, uint64_t *ret_thin,
                 int *ret_lock, struct error **ret_error)
{
    CLEANUP_FREE char *text = str_printf("%llu\n%s\n%s\n", (unsigned long long)spec->sectors,
                                         spec->owner, str_or(spec->scratch, ""));
    uint64_t thin = 1;

    for (int foreign = 0; foreign < FOREIGN_MAX; foreign++, thin++) {
        CLEANUP_ERROR struct error *error = NULL;
        thin = number_free(pool->disk, thin);
        if (thin > THIN_MAX)
            break;
        if (entry_write(pool, thin, text, ret_lock, ret_error) < 0)
            return -1;
        *ret_thin = thin;
        if (pool_create(pool, thin, spec->origin, &error) == 0)
            return 0;
        CLEANUP_FREE char *path = entry_path(pool->disk, thin);
        unlink(path);
        close(*ret_lock);
        if (error->err != EEXIST)
            return error_move(ret_error, &error);
    }
    return error_set(
        ret_error, ERROR_LIMIT, 0,
        "the thin pool '%s' has devices that are not ours: give one of its own to husk",
        pool->name);
}

/* ---- deleting ------------------------------------------------------------------------------- */

/* What it had goes back to the pool's file, not only to the pool. That may fail: then the file
 * stays as large as it was. */
static void bytes_discard(const struct dm_pool *pool, uint64_t thin, uint64_t sectors)
{
    char name[DM_NAME_MAX];
    uint64_t range[2] = {0, sectors * DM_SECTOR};

    if (sectors == 0 || dm_thin_activate(pool, thin, sectors, NULL) < 0)
        return;
    dm_thin_name(pool, thin, name);
    CLEANUP_FREE char *path = str_printf("/dev/mapper/%s", name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ioctl(fd, BLKDISCARD, range);
    close(fd);
}

static int entry_delete(const struct dm_pool *pool, uint64_t thin, uint64_t sectors,
                        struct error **ret_error)
{
    CLEANUP_FREE char *path = entry_path(pool->disk, thin);

    if (dm_thin_deactivate(pool, thin, ret_error) < 0)
        return -1;
    if (pool->options.blkdiscard)
        bytes_discard(pool, thin, sectors);
    if (dm_thin_delete(pool, thin, ret_error) < 0)
        return -1;
    if (unlink(path) < 0 && errno != ENOENT)
        return error_set(ret_error, ERROR_IO, errno, "remove '%s'", path);
    return 0;
}

int dm_book_strike(const struct dm_pool *pool, uint64_t thin, struct error **ret_error)
{
    return entry_delete(pool, thin, 0, ret_error);
}

static int entry_collect(const struct dm_pool *pool, uint64_t thin, struct error **ret_error)
{
    CLEANUP_FREE char *path = entry_path(pool->disk, thin);
    struct entry entry = {0};
    int result = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return errno == ENOENT ? 0 : error_set(ret_error, ERROR_IO, errno, "open '%s'", path);
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
        CLEANUP_FREE char *text = text_read(fd);
        entry_parse(str_or(text, ""), &entry);
        if (!text)
            result = error_set(ret_error, ERROR_IO, errno, "read '%s'", path);
        else if (!entry_is_alive(&entry, thin))
            result = entry_delete(pool, thin, entry.sectors, ret_error);
        entry_done(&entry);
    }
    close(fd);
    return result;
}

int dm_book_collect(const struct dm_pool *pool, struct error **ret_error)
{
    size_t count;
    CLEANUP_FREE uint64_t *numbers = entries_list(pool->disk, &count);
    struct error *first = NULL;

    for (size_t i = 0; i < count; i++)
        entry_collect(pool, numbers[i], first ? NULL : &first);
    return first ? error_move(ret_error, &first) : 0;
}
