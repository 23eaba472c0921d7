#include "image/partial.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"

enum { READ_SIZE = 128 << 10, FILE_MODE = 0644 };

static int hash_start(struct partial *p, struct error **ret_error)
{
    if (!p->hash)
        p->hash = EVP_MD_CTX_new();
    p->have = 0;
    if (!p->hash || !EVP_DigestInit_ex(p->hash, EVP_sha256(), NULL))
        return error_set(ret_error, ERROR_INTERNAL, 0, "sha256 cannot be set up");
    return 0;
}

static int hash_present(struct partial *p, struct error **ret_error)
{
    CLEANUP_FREE uint8_t *buffer = xmalloc(READ_SIZE);
    ssize_t n;

    while ((n = TEMP_FAILURE_RETRY(pread(p->fd, buffer, READ_SIZE, (off_t)p->have))) > 0) {
        EVP_DigestUpdate(p->hash, buffer, (size_t)n);
        p->have += (uint64_t)n;
    }
    return n < 0 ? error_set(ret_error, ERROR_IO, errno, "read '%s'", p->path) : 0;
}

/* Whoever had the lock before us may have given the file its place meanwhile: then ours has no
 * name any more. */
static bool has_its_name(const struct partial *p)
{
    struct stat ours, named;

    return fstat(p->fd, &ours) == 0 && lstat(p->path, &named) == 0 && ours.st_ino == named.st_ino;
}

static int present_take(struct partial *p, struct error **ret_error)
{
    struct stat st;

    if (hash_start(p, ret_error) < 0)
        return -1;
    if (fstat(p->fd, &st) < 0)
        return error_set(ret_error, ERROR_IO, errno, "look at '%s'", p->path);
    if ((uint64_t)st.st_size > p->size)
        return partial_restart(p, ret_error);
    return hash_present(p, ret_error);
}

int partial_open(struct partial *p, const char *root, const char *hex, uint64_t size,
                 struct error **ret_error)
{
    *p = (struct partial){.fd = -1, .size = size};
    memcpy(p->hex, hex, DIGEST_HEX);
    p->path = str_printf("%s/blobs/partial/%s", root, hex);
    p->fd = open(p->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    if (p->fd < 0) {
        error_set(ret_error, ERROR_IO, errno, "make '%s'", p->path);
        partial_close(p);
        return -1;
    }
    if (flock(p->fd, LOCK_EX | LOCK_NB) < 0 || !has_its_name(p)) {
        partial_close(p);
        return 1;
    }
    if (present_take(p, ret_error) == 0)
        return 0;
    partial_close(p);
    return -1;
}

int partial_write(struct partial *p, const void *data, size_t size, struct error **ret_error)
{
    const uint8_t *at = data;

    if (size > p->size - p->have)
        return error_set(ret_error, ERROR_CORRUPT, 0,
                         "blob 'sha256:%s' has more than the %llu bytes of its descriptor", p->hex,
                         (unsigned long long)p->size);
    while (size > 0) {
        ssize_t n = TEMP_FAILURE_RETRY(pwrite(p->fd, at, size, (off_t)p->have));
        if (n <= 0)
            return error_set(ret_error, ERROR_IO, n < 0 ? errno : ENOSPC, "write blob 'sha256:%s'",
                             p->hex);
        EVP_DigestUpdate(p->hash, at, (size_t)n);
        at += n;
        size -= (size_t)n;
        p->have += (uint64_t)n;
    }
    return 0;
}

int partial_restart(struct partial *p, struct error **ret_error)
{
    if (ftruncate(p->fd, 0) < 0)
        return error_set(ret_error, ERROR_IO, errno, "truncate '%s'", p->path);
    return hash_start(p, ret_error);
}

int partial_verify(struct partial *p, struct error **ret_error)
{
    uint8_t digest[SHA256_SIZE];
    char hex[DIGEST_HEX + 1];

    if (p->have != p->size)
        return error_set(ret_error, ERROR_CORRUPT, 0,
                         "blob 'sha256:%s' has %llu bytes, not the %llu of its descriptor", p->hex,
                         (unsigned long long)p->have, (unsigned long long)p->size);
    if (!EVP_DigestFinal_ex(p->hash, digest, NULL))
        return error_set(ret_error, ERROR_INTERNAL, 0, "sha256 cannot be finished");
    str_hex(hex, digest, sizeof(digest));
    if (strcmp(hex, p->hex) == 0)
        return 0;
    unlink(p->path);
    return error_set(ret_error, ERROR_CORRUPT, 0,
                     "the content of blob 'sha256:%s' has the digest 'sha256:%s'", p->hex, hex);
}

int partial_place(struct partial *p, struct placing *placing, struct error **ret_error)
{
    CLEANUP_FREE char *file = blob_file(p->hex);
    CLEANUP_FREE char *to = str_printf("%s/%s", placing->root, file);

    if (fsync(p->fd) < 0)
        return error_set(ret_error, ERROR_IO, errno, "sync '%s'", p->path);
    if (rename(p->path, to) < 0)
        return error_set(ret_error, ERROR_IO, errno, "place '%s'", file);
    strv_push_take(&placing->placed, take(to));
    return 0;
}

void partial_drop(struct partial *p)
{
    if (p->fd >= 0)
        unlink(p->path);
}

void partial_close(struct partial *p)
{
    if (p->fd >= 0)
        close(p->fd);
    EVP_MD_CTX_free(p->hash);
    free(p->path);
    p->fd = -1;
    p->hash = NULL;
    p->path = NULL;
}
