#include "image/place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "base/str.h"

enum { DIR_MODE = 0711, FILE_MODE = 0644 };

char *blob_file(const char *hex)
{
    return str_printf("blobs/sha256/%s", hex);
}

bool blob_is_there(const char *root, const char *hex, uint64_t size)
{
    CLEANUP_FREE char *path = str_printf("%s/blobs/sha256/%s", root, hex);
    struct stat st;

    return lstat(path, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == size;
}

int place_dirs(const char *root, struct error **ret_error)
{
    static const char *const names[] = {"blobs", "blobs/sha256", "blobs/partial", "images"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        CLEANUP_FREE char *path = str_printf("%s/%s", root, names[i]);
        if (mkdir(path, DIR_MODE) < 0 && errno != EEXIST)
            return error_set(ret_error, ERROR_IO, errno, "make '%s'", path);
    }
    return 0;
}

static int path_sync(const char *path, int flags, struct error **ret_error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | flags);
    int result = fd < 0 ? -1 : fsync(fd);

    if (result < 0)
        result = error_set(ret_error, ERROR_IO, errno, "sync '%s'", path);
    if (fd >= 0)
        close(fd);
    return result;
}

int place_file(struct placing *p, const char *from, const char *file, struct error **ret_error)
{
    CLEANUP_FREE char *to = str_printf("%s/%s", p->root, file);

    if (strcmp(from, to) == 0)
        return 0;
    if (path_sync(from, 0, ret_error) < 0)
        return -1;
    if (link(from, to) == 0)
        strv_push_take(&p->placed, take(to));
    else if (errno != EEXIST)
        return error_set(ret_error, ERROR_IO, errno, "place '%s'", file);
    return 0;
}

int place_text(struct placing *p, const char *scratch, const char *text, size_t size,
               const char *file, struct error **ret_error)
{
    CLEANUP_FREE char *path = str_printf("%s/%s", scratch, strrchr(file, '/') + 1);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    ssize_t n = fd < 0 ? -1 : TEMP_FAILURE_RETRY(write(fd, text, size));
    int err = n < 0 ? errno : ENOSPC;

    if (fd >= 0)
        close(fd);
    if (n != (ssize_t)size)
        return error_set(ret_error, ERROR_IO, err, "write '%s'", path);
    return place_file(p, path, file, ret_error);
}

int place_sync(const struct placing *p, struct error **ret_error)
{
    CLEANUP_FREE char *blobs = str_printf("%s/blobs/sha256", p->root);
    CLEANUP_FREE char *images = str_printf("%s/images", p->root);

    if (!p->placed)
        return 0;
    if (path_sync(blobs, O_DIRECTORY, ret_error) < 0)
        return -1;
    return path_sync(images, O_DIRECTORY, ret_error);
}

void place_undo(struct placing *p)
{
    STRV_FOREACH(path, p->placed)
        unlink(*path);
}

void place_done(struct placing *p)
{
    strv_free(p->placed);
    p->placed = NULL;
}

void sha256_text(const void *data, size_t size, char ret_hex[DIGEST_HEX + 1])
{
    uint8_t digest[SHA256_SIZE] = {0};

    EVP_Digest(data, size, digest, NULL, EVP_sha256(), NULL);
    str_hex(ret_hex, digest, sizeof(digest));
}
