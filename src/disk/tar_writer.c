#include "disk/tar_writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/str.h"

enum {
    BLOCK = 512,
    NAME_FIELD = 100, /* bytes of a name in a header; longer ones are in an extended one */
    ID_FIELD_MAX = 07777777,
    ZEROS = 64 << 10,
};

/* What eleven octal digits can say. */
#define SIZE_FIELD_MAX ((1ULL << 33) - 1)

#define WHITEOUT ".wh."
#define OPAQUE   ".wh..wh..opq"

/* POSIX.1-2017, pax, "ustar Interchange Format". */
struct header {
    char name[NAME_FIELD];
    char mode[8], uid[8], gid[8];
    char size[12], mtime[12];
    char sum[8];
    char type;
    char target[NAME_FIELD];
    char magic[6], version[2];
    char user[32], group[32];
    char dev_major[8], dev_minor[8];
    char prefix[155];
    char rest[12];
};
_Static_assert(sizeof(struct header) == BLOCK, "a header is a block");

void tar_writer_open(struct tar_writer *tar, const struct disk_output *out)
{
    *tar = (struct tar_writer){.out = out};
}

void tar_writer_done(struct tar_writer *tar)
{
    buf_release(&tar->pax);
}

/* ---- bytes ---------------------------------------------------------------------------------- */

static int put(struct tar_writer *tar, const void *data, size_t size, struct error **ret_error)
{
    if (size > tar->out->max_bytes - tar->written)
        return error_set(ret_error, ERROR_TOO_LARGE, 0,
                         "the layer would have more than the %llu bytes that one may have",
                         (unsigned long long)tar->out->max_bytes);
    tar->written += size;
    return tar->out->write(tar->out->arg, data, size, ret_error);
}

static int put_zeros(struct tar_writer *tar, uint64_t size, struct error **ret_error)
{
    static const char zeros[ZEROS];

    while (size > 0) {
        size_t part = size < ZEROS ? (size_t)size : ZEROS;
        if (put(tar, zeros, part, ret_error) < 0)
            return -1;
        size -= part;
    }
    return 0;
}

static int pad(struct tar_writer *tar, struct error **ret_error)
{
    return put_zeros(tar, -tar->written % BLOCK, ret_error);
}

/* ---- extended headers ----------------------------------------------------------------------- */

static size_t digits(size_t number)
{
    size_t count = 1;

    for (; number > 9; number /= 10)
        count++;
    return count;
}

/* "LENGTH KEY=VALUE\n", where the length counts itself. */
static void record(struct tar_writer *tar, const char *key, const void *value, size_t size)
{
    size_t rest = strlen(key) + size + 3, length = rest + digits(rest);

    length = rest + digits(length);
    buf_printf(&tar->pax, "%zu %s=", length, key);
    buf_append(&tar->pax, value, size);
    buf_append(&tar->pax, "\n", 1);
}

static void record_number(struct tar_writer *tar, const char *key, uint64_t number)
{
    CLEANUP_FREE char *text = str_printf("%llu", (unsigned long long)number);

    record(tar, key, text, strlen(text));
}

/* Seconds before 1970 have their fraction counted from the next second: -1.25 is {-2, 0.75}. */
static void record_time(struct tar_writer *tar, int64_t seconds, uint32_t nsec)
{
    bool before = seconds < 0 && nsec > 0;
    uint32_t fraction = before ? 1000000000 - nsec : nsec;
    int64_t whole = before ? seconds + 1 : seconds;
    CLEANUP_FREE char *text =
        str_printf("%s%lld.%09u", before && whole == 0 ? "-" : "", (long long)whole, fraction);

    if (nsec == 0)
        *strchr(text, '.') = '\0';
    record(tar, "mtime", text, strlen(text));
}

static int record_xattrs(struct tar_writer *tar, const struct buf *xattrs, struct error **ret_error)
{
    const void *value;
    size_t position = 0, size;
    char *next;

    while (sink_xattr_next(xattrs, &position, &next, &value, &size)) {
        CLEANUP_FREE char *name = next;
        if (strchr(name, '='))
            return error_set(ret_error, ERROR_UNSUPPORTED, 0,
                             "the name of its extended attribute '%.100s' has a '=', which a "
                             "layer has no way to say",
                             name);
        CLEANUP_FREE char *key = str_printf("SCHILY.xattr.%s", name);
        record(tar, key, value, size);
    }
    return 0;
}

/* ---- headers -------------------------------------------------------------------------------- */

static void octal(char *field, size_t width, uint64_t number)
{
    field[width - 1] = '\0';
    for (size_t i = width - 1; i-- > 0; number >>= 3)
        field[i] = (char)('0' + (number & 7));
}

static int header_put(struct tar_writer *tar, struct header *h, struct error **ret_error)
{
    unsigned sum = 0;

    memcpy(h->magic, "ustar", 6);
    memcpy(h->version, "00", 2);
    memset(h->sum, ' ', sizeof(h->sum));
    for (size_t i = 0; i < sizeof(*h); i++)
        sum += ((const uint8_t *)h)[i];
    octal(h->sum, 7, sum);
    return put(tar, h, sizeof(*h), ret_error);
}

static int pax_put(struct tar_writer *tar, struct error **ret_error)
{
    struct header h = {.name = "PaxHeaders", .type = 'x'};

    if (tar->pax.len == 0)
        return 0;
    octal(h.mode, sizeof(h.mode), 0644);
    octal(h.uid, sizeof(h.uid), 0);
    octal(h.gid, sizeof(h.gid), 0);
    octal(h.mtime, sizeof(h.mtime), 0);
    octal(h.size, sizeof(h.size), tar->pax.len);
    if (header_put(tar, &h, ret_error) < 0 ||
        put(tar, tar->pax.data, tar->pax.len, ret_error) < 0 || pad(tar, ret_error) < 0)
        return -1;
    buf_clear(&tar->pax);
    return 0;
}

/* Names that do not fit are cut in the header and whole in the extended one. */
static void name_fill(struct tar_writer *tar, char field[NAME_FIELD], const char *key,
                      const char *name)
{
    size_t length = strlen(name);

    memcpy(field, name, length < NAME_FIELD ? length : NAME_FIELD);
    if (length > NAME_FIELD)
        record(tar, key, name, length);
}

static void number_fill(struct tar_writer *tar, char *field, size_t width, uint64_t max,
                        const char *key, uint64_t number)
{
    octal(field, width, number <= max ? number : 0);
    if (number > max)
        record_number(tar, key, number);
}

static char type_of(uint32_t mode)
{
    static const struct {
        uint32_t mode;
        char type;
    } types[] = {{S_IFREG, '0'}, {S_IFLNK, '2'}, {S_IFCHR, '3'},
                 {S_IFBLK, '4'}, {S_IFDIR, '5'}, {S_IFIFO, '6'}};

    for (size_t i = 0; i < ARRAY_SIZE(types); i++)
        if (types[i].mode == (mode & S_IFMT))
            return types[i].type;
    return '0';
}

static int entry_put(struct tar_writer *tar, char type, const char *path,
                     const struct sink_attr *attr, const char *target, uint64_t size,
                     struct error **ret_error)
{
    CLEANUP_FREE char *name = type == '5' ? str_printf("%s/", *path ? path : ".") : xstrdup(path);
    bool fits = attr->mtime >= 0 && (uint64_t)attr->mtime <= SIZE_FIELD_MAX;
    struct header h = {.type = type};

    buf_clear(&tar->pax);
    name_fill(tar, h.name, "path", name);
    name_fill(tar, h.target, "linkpath", str_or(target, ""));
    octal(h.mode, sizeof(h.mode), attr->mode & 07777);
    number_fill(tar, h.uid, sizeof(h.uid), ID_FIELD_MAX, "uid", attr->uid);
    number_fill(tar, h.gid, sizeof(h.gid), ID_FIELD_MAX, "gid", attr->gid);
    number_fill(tar, h.size, sizeof(h.size), SIZE_FIELD_MAX, "size", size);
    octal(h.mtime, sizeof(h.mtime), fits ? (uint64_t)attr->mtime : 0);
    if (!fits || attr->mtime_nsec)
        record_time(tar, attr->mtime, attr->mtime_nsec);
    if (type == '3' || type == '4') {
        octal(h.dev_major, sizeof(h.dev_major), attr->dev_major);
        octal(h.dev_minor, sizeof(h.dev_minor), attr->dev_minor);
    }
    if (type != '1' && record_xattrs(tar, attr->xattrs, ret_error) < 0)
        return -1;
    if (pax_put(tar, ret_error) < 0)
        return -1;
    tar->left = size;
    return header_put(tar, &h, ret_error);
}

/* ---- entries -------------------------------------------------------------------------------- */

static const char *last_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static int name_check(const char *path, struct error **ret_error)
{
    if (!str_starts(last_name(path), WHITEOUT))
        return 0;
    return error_set(ret_error, ERROR_UNSUPPORTED, 0,
                     "a name that begins with '" WHITEOUT "' means in a layer that something was "
                     "removed: rename it");
}

int tar_writer_add(struct tar_writer *tar, const char *path, const struct sink_attr *attr,
                   const char *target, uint64_t size, struct error **ret_error)
{
    if (name_check(path, ret_error) < 0)
        return -1;
    tar->entries++;
    return entry_put(tar, type_of(attr->mode), path, attr, target, size, ret_error);
}

int tar_writer_link(struct tar_writer *tar, const char *path, const struct sink_attr *attr,
                    const char *target, struct error **ret_error)
{
    if (name_check(path, ret_error) < 0)
        return -1;
    tar->entries++;
    return entry_put(tar, '1', path, attr, target, 0, ret_error);
}

int tar_writer_data(struct tar_writer *tar, const void *data, uint64_t size,
                    struct error **ret_error)
{
    if (size > tar->left)
        return error_set(ret_error, ERROR_INTERNAL, 0, "more data than the entry has room for");
    tar->left -= size;
    if ((data ? put(tar, data, (size_t)size, ret_error) : put_zeros(tar, size, ret_error)) < 0)
        return -1;
    return tar->left ? 0 : pad(tar, ret_error);
}

static int marker_put(struct tar_writer *tar, const char *path, struct error **ret_error)
{
    static const struct sink_attr attr = {.mode = S_IFREG | 0600};

    return entry_put(tar, '0', path, &attr, NULL, 0, ret_error);
}

int tar_writer_whiteout(struct tar_writer *tar, const char *path, struct error **ret_error)
{
    const char *name = last_name(path);
    CLEANUP_FREE char *marker = str_printf("%.*s" WHITEOUT "%s", (int)(name - path), path, name);

    tar->entries++;
    return marker_put(tar, marker, ret_error);
}

int tar_writer_opaque(struct tar_writer *tar, const char *path, struct error **ret_error)
{
    CLEANUP_FREE char *marker = str_printf("%s%s" OPAQUE, path, *path ? "/" : "");

    return marker_put(tar, marker, ret_error);
}

int tar_writer_end(struct tar_writer *tar, struct error **ret_error)
{
    return put_zeros(tar, 2 * BLOCK, ret_error);
}
