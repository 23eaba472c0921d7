#include "image/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <archive.h>
#include <archive_entry.h>
#include <openssl/evp.h>

#include "base/str.h"

#define BLOBS "blobs/sha256/"

enum {
    READ_SIZE = 128 << 10,
    HEX_SIZE = 64,
    SHA256_SIZE = 32,
    QUOTE_MAX = 200,
    SHORT_ID = 12,
    FILE_MODE = 0600,
};

/* What one reading of an archive needs. */
struct reading {
    const struct image_load *load;
    struct archive *tar;
    uint8_t *buffer;
    struct error *error; /* met inside of libarchive */
    uint64_t total;      /* bytes read from the descriptor */
};

static la_ssize_t reading_read(struct archive *tar, void *arg, const void **ret_data)
{
    struct reading *r = arg;
    const struct image_load *load = r->load;
    ssize_t n;

    do {
        if (load->wait(load->arg, load->fd, &r->error) < 0)
            return ARCHIVE_FATAL;
        n = read(load->fd, r->buffer, READ_SIZE);
    } while (n < 0 && (errno == EINTR || errno == EAGAIN));
    if (n < 0) {
        error_set(&r->error, ERROR_IO, errno, "read the archive");
        return ARCHIVE_FATAL;
    }
    r->total += (uint64_t)n;
    *ret_data = r->buffer;
    return n;
}

static int reading_failed(struct reading *r, struct error **ret_error)
{
    const char *why = archive_error_string(r->tar);

    if (r->error)
        return error_move(ret_error, &r->error);
    return error_set(ret_error, ERROR_CORRUPT, 0, "the archive cannot be read (%s)",
                     why ? why : "it is damaged");
}

/* ---- names ---------------------------------------------------------------------------------- */

/* `name`, seen from the directory of `from`, without "." and ".."; NULL if it leads out. */
static char *name_resolve(const char *from, const char *name)
{
    const char *slash = strrchr(from, '/');
    CLEANUP_FREE char *whole =
        slash ? str_printf("%.*s/%s", (int)(slash - from), from, name) : xstrdup(name);
    CLEANUP_STRV char **parts = str_split(whole, '/');
    CLEANUP_STRV char **kept = NULL;
    size_t count = 0;

    STRV_FOREACH(part, parts) {
        if (strcmp(*part, "..") == 0) {
            if (count == 0)
                return NULL;
            free(kept[--count]);
            kept[count] = NULL;
        } else if (**part && strcmp(*part, ".") != 0) {
            strv_push(&kept, *part);
            count++;
        }
    }
    return count > 0 ? strv_join((const char *const *)kept, "/") : NULL;
}

/* A member's name: no ".." at all here. */
static char *name_clean(const char *raw, struct error **ret_error)
{
    CLEANUP_STRV char **parts = str_split(raw, '/');
    char *name = strlen(raw) <= SPOOL_NAME_MAX && raw[0] != '/' ? name_resolve("", raw) : NULL;

    if (name && !strv_contains((const char *const *)parts, ".."))
        return name;
    free(name);
    error_set(ret_error, ERROR_INVALID, 0, "archive member '%.*s' has a name that leads out of it",
              QUOTE_MAX, raw);
    return NULL;
}

static bool is_hex(const char *s, size_t length)
{
    return length == HEX_SIZE && strspn(s, "0123456789abcdef") >= HEX_SIZE;
}

/* The digest that a name claims: always binding for an OCI blob ("blobs/sha256/HEX"); for others
 * ("HEX.tar", as skopeo writes) only a hint at a blob that may be here already. */
static const char *name_digest(const char *name, bool *ret_binding)
{
    const char *slash = strrchr(name, '/');
    const char *last = slash ? slash + 1 : name;

    *ret_binding = str_starts(name, BLOBS);
    if (*ret_binding)
        return is_hex(last, strlen(last)) ? last : NULL;
    return is_hex(last, strcspn(last, ".")) ? last : NULL;
}

/* ---- files ---------------------------------------------------------------------------------- */

/* A blob of the store, if it is there with that size, gets another name in the scratch directory:
 * whoever removes it from the store takes nothing away from us. */
static char *stored_blob(const struct image_load *load, const char *hex, uint64_t size,
                         size_t number)
{
    CLEANUP_FREE char *path = str_printf("%s/%s%.*s", load->root, BLOBS, HEX_SIZE, hex);
    CLEANUP_FREE char *own = str_printf("%s/member-%zu", load->scratch, number);
    struct stat st;

    if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != size ||
        link(path, own) < 0)
        return NULL;
    return take(own);
}

static bool is_zero(const uint8_t *data, size_t size)
{
    return size == 0 || (data[0] == 0 && memcmp(data, data + 1, size - 1) == 0);
}

/* Zeros stay a hole. */
static int data_write(int fd, const uint8_t *data, size_t size, uint64_t offset,
                      struct error **ret_error)
{
    if (fd < 0 || is_zero(data, size))
        return 0;
    while (size > 0) {
        ssize_t n = TEMP_FAILURE_RETRY(pwrite(fd, data, size, (off_t)offset));
        if (n <= 0)
            return error_set(ret_error, ERROR_IO, n < 0 ? errno : ENOSPC, "spool the archive");
        data += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

/* Which members are layers is not known before the archive has been read to its end; but whom
 * somebody would wait for is. Manifests and configs are smaller. */
enum { PROGRESS_SIZE_MIN = 32 << 10 };

/* Copies the data of the current entry to fd (-1: nowhere), and hashes it. */
static int data_copy(struct reading *r, const struct member *member, int fd, EVP_MD_CTX *hash,
                     struct error **ret_error)
{
    const struct image_load *load = r->load;
    const void *data;
    size_t size;
    int64_t offset;
    uint64_t done = 0;

    for (;;) {
        int result = archive_read_data_block(r->tar, &data, &size, &offset);
        if (result == ARCHIVE_EOF)
            break;
        if (result != ARCHIVE_OK)
            return reading_failed(r, ret_error);
        if ((uint64_t)offset != done)
            return error_set(ret_error, ERROR_UNSUPPORTED, 0, "it is a sparse file");
        if (data_write(fd, data, size, done, ret_error) < 0)
            return -1;
        EVP_DigestUpdate(hash, data, size);
        done += size;
        if (member->size >= PROGRESS_SIZE_MIN &&
            load->progress(load->arg, member->hex, "Loading layer", done, member->size, ret_error) <
                0)
            return -1;
    }
    if (done != member->size)
        return error_set(ret_error, ERROR_CORRUPT, 0, "it is shorter than it claims");
    if (fd >= 0 && ftruncate(fd, (off_t)done) < 0)
        return error_set(ret_error, ERROR_IO, errno, "spool the archive");
    return 0;
}

static int data_hash(struct reading *r, struct member *member, int fd, struct error **ret_error)
{
    uint8_t digest[SHA256_SIZE];
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    int result = 0;

    if (!hash || !EVP_DigestInit_ex(hash, EVP_sha256(), NULL))
        result = error_set(ret_error, ERROR_INTERNAL, 0, "sha256 cannot be set up");
    if (result == 0)
        result = data_copy(r, member, fd, hash, ret_error);
    if (result == 0 && !EVP_DigestFinal_ex(hash, digest, NULL))
        result = error_set(ret_error, ERROR_INTERNAL, 0, "sha256 cannot be finished");
    EVP_MD_CTX_free(hash);
    if (result == 0)
        str_hex(member->hex, digest, sizeof(digest));
    return result;
}

static int file_take(struct reading *r, struct member *member, size_t number,
                     struct error **ret_error)
{
    const struct image_load *load = r->load;
    bool binding;
    const char *claim = name_digest(member->name, &binding);
    int fd = -1;

    member->path = claim ? stored_blob(load, claim, member->size, number) : NULL;
    bool stored = member->path != NULL;
    if (!stored) {
        member->path = str_printf("%s/member-%zu", load->scratch, number);
        fd = open(member->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, FILE_MODE);
        if (fd < 0)
            return error_set(ret_error, ERROR_IO, errno, "spool the archive");
    }
    /* Until it has a digest, people see the start of its name. */
    CLEANUP_FREE char *shown = xstrndup(claim ? claim : member->name, SHORT_ID);
    memcpy(member->hex, shown, strlen(shown) + 1);
    int result = data_hash(r, member, fd, ret_error);
    if (fd >= 0)
        close(fd);
    if (result == 0 && claim && (binding || stored) && memcmp(claim, member->hex, HEX_SIZE) != 0)
        return error_set(ret_error, ERROR_CORRUPT, 0, "its content has the digest 'sha256:%s'",
                         member->hex);
    return result;
}

/* ---- members -------------------------------------------------------------------------------- */

static struct member *member_add(struct spool *spool, char *name)
{
    if (spool->count % 64 == 0)
        spool->members = xrealloc(spool->members, (spool->count + 64) * sizeof(*spool->members));
    struct member *member = &spool->members[spool->count++];
    *member = (struct member){.name = name};
    return member;
}

static int member_fill(struct spool *spool, struct reading *r, struct member *member,
                       struct archive_entry *entry, struct error **ret_error)
{
    const char *hard = archive_entry_hardlink(entry);
    const char *soft = archive_entry_symlink(entry);
    int64_t size = archive_entry_size(entry);

    if (hard || soft) {
        member->target = hard ? name_resolve("", hard) : name_resolve(member->name, soft);
        if (!member->target || (hard ? hard[0] : soft[0]) == '/')
            return error_set(ret_error, ERROR_INVALID, 0, "it is a link that leads out of it");
        return 0;
    }
    if (archive_entry_filetype(entry) != AE_IFREG)
        return error_set(ret_error, ERROR_INVALID, 0, "it is neither a file nor a link");
    if (size < 0 || (uint64_t)size > r->load->layer_max_bytes)
        return error_set(ret_error, ERROR_TOO_LARGE, 0,
                         "it claims %lld bytes, more than the %llu that a layer may have",
                         (long long)size, (unsigned long long)r->load->layer_max_bytes);
    member->size = (uint64_t)size;
    return file_take(r, member, spool->count, ret_error);
}

static int member_read(struct spool *spool, struct reading *r, struct archive_entry *entry,
                       struct error **ret_error)
{
    const char *raw = archive_entry_pathname(entry);
    CLEANUP_ERROR struct error *error = NULL;

    if (!raw)
        return error_set(ret_error, ERROR_CORRUPT, 0, "the archive has a member without a name");
    if (archive_entry_filetype(entry) == AE_IFDIR)
        return 0;
    if (spool->count >= SPOOL_MEMBERS_MAX)
        return error_set(ret_error, ERROR_TOO_LARGE, 0, "the archive has more than %d files",
                         SPOOL_MEMBERS_MAX);
    char *name = name_clean(raw, ret_error);
    if (!name)
        return -1;
    struct member *member = member_add(spool, name);
    if (member_fill(spool, r, member, entry, &error) == 0)
        return 0;
    error_wrap(&error, "archive member '%.*s'", QUOTE_MAX, name);
    return error_move(ret_error, &error);
}

static int member_compare(const void *a, const void *b)
{
    const struct member *x = a, *y = b;

    return strcmp(x->name, y->name);
}

static int members_read(struct spool *spool, struct reading *r, struct error **ret_error)
{
    struct archive_entry *entry;

    for (;;) {
        int result = archive_read_next_header(r->tar, &entry);
        if (result == ARCHIVE_EOF)
            break;
        if (result != ARCHIVE_OK && result != ARCHIVE_WARN)
            return reading_failed(r, ret_error);
        if (member_read(spool, r, entry, ret_error) < 0)
            return -1;
    }
    qsort(spool->members, spool->count, sizeof(*spool->members), member_compare);
    for (size_t i = 1; i < spool->count; i++)
        if (strcmp(spool->members[i - 1].name, spool->members[i].name) == 0)
            return error_set(ret_error, ERROR_CORRUPT, 0, "the archive has '%.*s' twice", QUOTE_MAX,
                             spool->members[i].name);
    return 0;
}

/* What follows the archive's end. Who sends it may still say, by leaving, that it is not whole. */
static int rest_read(struct reading *r, struct error **ret_error)
{
    const void *ignored;
    la_ssize_t n;

    while ((n = reading_read(r->tar, r, &ignored)) > 0)
        ;
    return n < 0 ? reading_failed(r, ret_error) : 0;
}

int spool_read(struct spool *spool, const struct image_load *load, struct error **ret_error)
{
    struct reading r = {.load = load, .tar = archive_read_new(), .buffer = xmalloc(READ_SIZE)};
    int result;

    *spool = (struct spool){0};
    archive_read_support_format_tar(r.tar);
    archive_read_support_filter_gzip(r.tar);
    archive_read_support_filter_zstd(r.tar);
    archive_read_support_filter_xz(r.tar);
    archive_read_support_filter_bzip2(r.tar);
    if (archive_read_open(r.tar, &r, NULL, reading_read, NULL) == ARCHIVE_OK)
        result = members_read(spool, &r, ret_error);
    else
        result = reading_failed(&r, ret_error);
    if (result == 0)
        result = rest_read(&r, ret_error);
    archive_read_free(r.tar);
    free(r.buffer);
    error_free(r.error);
    return result;
}

void spool_done(struct spool *spool)
{
    for (size_t i = 0; i < spool->count; i++) {
        free(spool->members[i].name);
        free(spool->members[i].target);
        free(spool->members[i].path);
    }
    free(spool->members);
    *spool = (struct spool){0};
}

static int name_compare(const void *key, const void *element)
{
    const struct member *member = element;

    return strcmp(key, member->name);
}

struct member *spool_find(const struct spool *spool, const char *name)
{
    for (int i = 0; i < SPOOL_LINKS_MAX && spool->count > 0; i++) {
        struct member *member =
            bsearch(name, spool->members, spool->count, sizeof(*spool->members), name_compare);
        if (!member || !member->target)
            return member;
        name = member->target;
    }
    return NULL;
}

struct member *spool_blob(const struct spool *spool, const char *hex)
{
    CLEANUP_FREE char *name = str_printf("%s%s", BLOBS, hex);

    return spool_find(spool, name);
}

char *member_text(const struct member *member, size_t max, struct error **ret_error)
{
    if (member->size > max) {
        error_set(ret_error, ERROR_TOO_LARGE, 0, "'%s' has more than %zu bytes", member->name, max);
        return NULL;
    }
    size_t size = (size_t)member->size;
    CLEANUP_FREE char *text = xcalloc(1, size + 1);
    int fd = open(member->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : TEMP_FAILURE_RETRY(read(fd, text, size));
    int err = n < 0 ? errno : EIO;

    if (fd >= 0)
        close(fd);
    if (n != (ssize_t)size) {
        error_set(ret_error, ERROR_IO, err, "read '%s'", member->name);
        return NULL;
    }
    return take(text);
}
