#include "worker/template.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <linux/magic.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/str.h"
#include "disk/disk.h"

enum {
    PAGE = 4096,
    PIECE = 1 << 20, /* read at a time: a multiple of PAGE */
    SHA256_SIZE = TEMPLATE_HEX / 2,
    FILE_MODE = 0600,
    MARK_LETTERS = 26, /* too many to come twice */
};

#define META_FILE  "template.json"
#define STATE_FILE "state"
#define RAM_FILE   "ram"
#define LAYER_FILE "layer"

static void closep(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}
#define CLEANUP_FD __attribute__((cleanup(closep)))

static void hash_freep(EVP_MD_CTX **hash)
{
    EVP_MD_CTX_free(*hash);
}
#define CLEANUP_HASH __attribute__((cleanup(hash_freep)))

/* ---- template.json -------------------------------------------------------------------------- */

void template_meta_done(struct template_meta *meta)
{
    strv_free(meta->inputs);
    meta->inputs = NULL;
}

static int size_read(const json_t *json, const char *name, uint64_t max, uint64_t *ret,
                     struct error **ret_error)
{
    const json_t *value = json_object_get(json, name);
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number <= 0 || (uint64_t)number > max)
        return error_set(ret_error, ERROR_CORRUPT, 0, "'%s' is not a size", name);
    *ret = (uint64_t)number;
    return 0;
}

static int digest_read(const json_t *json, const char *name, char ret[TEMPLATE_HEX + 1],
                       struct error **ret_error)
{
    const char *text = json_string_value(json_object_get(json, name));
    if (!text || strspn(text, "0123456789abcdef") != TEMPLATE_HEX || text[TEMPLATE_HEX])
        return error_set(ret_error, ERROR_CORRUPT, 0, "'%s' is not a SHA-256", name);
    memcpy(ret, text, TEMPLATE_HEX + 1);
    return 0;
}

static int inputs_read(const json_t *json, char ***ret, struct error **ret_error)
{
    const json_t *inputs = json_object_get(json, "inputs");
    if (!json_is_array(inputs))
        return error_set(ret_error, ERROR_CORRUPT, 0, "'inputs' is not an array");
    for (size_t i = 0; i < json_array_size(inputs); i++) {
        const char *text = json_string_value(json_array_get(inputs, i));
        if (!text)
            return error_set(ret_error, ERROR_CORRUPT, 0, "one of 'inputs' is not a string");
        strv_push(ret, text);
    }
    return 0;
}

int template_meta_parse(const char *text, size_t size, struct template_meta *ret,
                        struct error **ret_error)
{
    json_error_t where;
    *ret = (struct template_meta){0};
    if (size > TEMPLATE_META_MAX)
        return error_set(ret_error, ERROR_CORRUPT, 0, "it is larger than %d bytes",
                         TEMPLATE_META_MAX);
    json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &where);
    if (!json)
        return error_set(ret_error, ERROR_CORRUPT, 0, "line %d: %s", where.line, where.text);
    int result = 0;
    if (json_integer_value(json_object_get(json, "format")) != TEMPLATE_FORMAT)
        result = error_set(ret_error, ERROR_CORRUPT, 0, "'format' is not %d", TEMPLATE_FORMAT);
    if (result == 0)
        result = inputs_read(json, &ret->inputs, ret_error);
    if (result == 0)
        result = size_read(json, "stateBytes", TEMPLATE_STATE_MAX, &ret->state_bytes, ret_error);
    if (result == 0)
        result = size_read(json, "ramBytes", INT64_MAX, &ret->ram_bytes, ret_error);
    if (result == 0)
        result = digest_read(json, "stateSha256", ret->state_sha256, ret_error);
    if (result == 0)
        result = digest_read(json, "ramSha256", ret->ram_sha256, ret_error);
    if (result == 0 && json_object_get(json, "layerBytes"))
        result = size_read(json, "layerBytes", INT64_MAX, &ret->layer_bytes, ret_error);
    if (result == 0 && ret->layer_bytes)
        result = digest_read(json, "layerSha256", ret->layer_sha256, ret_error);
    json_decref(json);
    if (result < 0)
        template_meta_done(ret);
    return result;
}

char *template_meta_write(const struct template_meta *meta)
{
    json_t *inputs = json_array();
    STRV_FOREACH(input, meta->inputs)
        json_array_append_new(inputs, json_string(*input));
    json_t *json =
        json_pack("{s:i, s:o, s:I, s:s, s:I, s:s}", "format", TEMPLATE_FORMAT, "inputs", inputs,
                  "stateBytes", (json_int_t)meta->state_bytes, "stateSha256", meta->state_sha256,
                  "ramBytes", (json_int_t)meta->ram_bytes, "ramSha256", meta->ram_sha256);
    if (json && meta->layer_bytes) {
        json_object_set_new(json, "layerBytes", json_integer((json_int_t)meta->layer_bytes));
        json_object_set_new(json, "layerSha256", json_string(meta->layer_sha256));
    }
    char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
    json_decref(json);
    return text;
}

/* ---- reading and hashing -------------------------------------------------------------------- */

static EVP_MD_CTX *hash_begin(void)
{
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    if (!hash || !EVP_DigestInit_ex(hash, EVP_sha256(), NULL))
        abort(); /* only for want of memory */
    return hash;
}

static void hash_end(EVP_MD_CTX *hash, char ret[TEMPLATE_HEX + 1])
{
    uint8_t digest[SHA256_SIZE];
    EVP_DigestFinal_ex(hash, digest, NULL);
    str_hex(ret, digest, sizeof(digest));
}

static bool page_is_zero(const uint8_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, PAGE - 1) == 0;
}

static void hash_page(EVP_MD_CTX *hash, uint64_t number, const uint8_t *page)
{
    uint8_t name[8];
    for (size_t i = 0; i < sizeof(name); i++)
        name[i] = (uint8_t)(number >> 8 * i);
    EVP_DigestUpdate(hash, name, sizeof(name));
    EVP_DigestUpdate(hash, page, PAGE);
}

/* All `size` bytes at `at`; ERROR_CORRUPT if the file is shorter. */
static int read_whole(int fd, const char *name, uint8_t *to, size_t size, uint64_t at,
                      struct error **ret_error)
{
    while (size > 0) {
        ssize_t n = TEMP_FAILURE_RETRY(pread(fd, to, size, (off_t)at));
        if (n < 0)
            return error_set(ret_error, ERROR_IO, errno, "read '%s'", name);
        if (n == 0)
            return error_set(ret_error, ERROR_CORRUPT, 0, "'%s' is cut short", name);
        to += n;
        at += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

static int write_whole(int fd, const char *name, const uint8_t *from, size_t size, uint64_t at,
                       struct error **ret_error)
{
    while (size > 0) {
        ssize_t n = TEMP_FAILURE_RETRY(pwrite(fd, from, size, (off_t)at));
        if (n < 0)
            return error_set(ret_error, ERROR_IO, errno, "write '%s'", name);
        from += n;
        at += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

/* The first byte from `at` on that is not in a hole, a multiple of PAGE; `size` if there is none.
 */
static uint64_t data_find(int fd, uint64_t at, uint64_t size)
{
    off_t data = lseek(fd, (off_t)at, SEEK_DATA);
    if (data < 0)
        return errno == ENXIO ? size : at; /* not every file system knows its holes */
    return (uint64_t)data / PAGE * PAGE;
}

/* Calls `page` with each page of the file that is not zero, and hashes it. */
static int pages_each(int fd, const char *name, uint64_t size,
                      int (*page)(void *arg, uint64_t at, const uint8_t *data,
                                  struct error **ret_error),
                      void *arg, char ret_sha256[TEMPLATE_HEX + 1], uint64_t *ret_bytes,
                      struct error **ret_error)
{
    CLEANUP_FREE uint8_t *piece = xmalloc(PIECE);
    CLEANUP_HASH EVP_MD_CTX *hash = hash_begin();
    *ret_bytes = 0;
    for (uint64_t at = data_find(fd, 0, size); at < size; at = data_find(fd, at, size)) {
        size_t n = size - at < PIECE ? (size_t)(size - at) : PIECE;
        if (read_whole(fd, name, piece, n, at, ret_error) < 0)
            return -1;
        for (size_t i = 0; i < n; i += PAGE) {
            if (page_is_zero(piece + i))
                continue;
            hash_page(hash, (at + i) / PAGE, piece + i);
            if (page(arg, at + i, piece + i, ret_error) < 0)
                return -1;
            *ret_bytes += PAGE;
        }
        at += n;
    }
    hash_end(hash, ret_sha256);
    return 0;
}

static int file_open(int dir, const char *name, int flags, int *ret, struct error **ret_error)
{
    *ret = openat(dir, name, flags | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    return *ret < 0 ? error_set(ret_error, ERROR_IO, errno, "open '%s'", name) : 0;
}

static int file_size(int fd, const char *name, uint64_t *ret, struct error **ret_error)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return error_set(ret_error, ERROR_IO, errno, "look at '%s'", name);
    *ret = (uint64_t)st.st_size;
    return 0;
}

static int state_digest(int fd, uint64_t size, char ret[TEMPLATE_HEX + 1], struct error **ret_error)
{
    CLEANUP_FREE uint8_t *piece = xmalloc(PIECE);
    CLEANUP_HASH EVP_MD_CTX *hash = hash_begin();
    for (uint64_t at = 0; at < size;) {
        size_t n = size - at < PIECE ? (size_t)(size - at) : PIECE;
        if (read_whole(fd, STATE_FILE, piece, n, at, ret_error) < 0)
            return -1;
        EVP_DigestUpdate(hash, piece, n);
        at += n;
    }
    hash_end(hash, ret);
    return 0;
}

static int memory_size(int memory, uint64_t *ret, struct error **ret_error)
{
    if (file_size(memory, "the memory", ret, ret_error) < 0)
        return -1;
    if (*ret == 0 || *ret % PAGE)
        return error_set(ret_error, ERROR_INVALID, 0, "a memory of %llu bytes is no template's",
                         (unsigned long long)*ret);
    return 0;
}

/* ---- saving --------------------------------------------------------------------------------- */

static int page_write(void *arg, uint64_t at, const uint8_t *data, struct error **ret_error)
{
    return write_whole(*(const int *)arg, RAM_FILE, data, PAGE, at, ret_error);
}

static int ram_save(int dir, int memory, struct template_meta *meta, uint64_t *ret_bytes,
                    struct error **ret_error)
{
    CLEANUP_FD int ram = -1;
    if (memory_size(memory, &meta->ram_bytes, ret_error) < 0 ||
        file_open(dir, RAM_FILE, O_WRONLY | O_CREAT | O_EXCL, &ram, ret_error) < 0)
        return -1;
    if (ftruncate(ram, (off_t)meta->ram_bytes) < 0)
        return error_set(ret_error, ERROR_IO, errno, "make '%s'", RAM_FILE);
    if (pages_each(memory, "the memory", meta->ram_bytes, page_write, &ram, meta->ram_sha256,
                   ret_bytes, ret_error) < 0)
        return -1;
    return fsync(ram) < 0 ? error_set(ret_error, ERROR_IO, errno, "sync '%s'", RAM_FILE) : 0;
}

static int state_save(int dir, struct template_meta *meta, struct error **ret_error)
{
    CLEANUP_FD int state = -1;
    if (file_open(dir, STATE_FILE, O_RDONLY, &state, ret_error) < 0 ||
        file_size(state, STATE_FILE, &meta->state_bytes, ret_error) < 0)
        return -1;
    if (meta->state_bytes == 0 || meta->state_bytes > TEMPLATE_STATE_MAX)
        return error_set(ret_error, ERROR_CORRUPT, 0, "a state of %llu bytes is no template's",
                         (unsigned long long)meta->state_bytes);
    if (state_digest(state, meta->state_bytes, meta->state_sha256, ret_error) < 0)
        return -1;
    return fsync(state) < 0 ? error_set(ret_error, ERROR_IO, errno, "sync '%s'", STATE_FILE) : 0;
}

static int page_count(void *arg, uint64_t at, const uint8_t *data, struct error **ret_error)
{
    return 0;
}

/* In the bytes before the superblock, which are zero. */
static int mark_write(int fd, struct error **ret_error)
{
    char random[MARK_LETTERS + 1] = "";
    str_random(random, MARK_LETTERS, "abcdefghijklmnopqrstuvwxyz");
    CLEANUP_FREE char *mark = str_printf("husk template %s\n", random);
    return write_whole(fd, LAYER_FILE, (const uint8_t *)mark, strlen(mark), 0, ret_error);
}

static int layer_save(int dir, const char *path, struct template_meta *meta, uint64_t *ret_bytes,
                      struct error **ret_error)
{
    CLEANUP_FD int from = -1, to = -1;
    uint64_t bytes = 0;
    if (str_empty(path))
        return 0;
    from = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (from < 0)
        return error_set(ret_error, ERROR_IO, errno, "open '%s'", path);
    if (file_size(from, path, &meta->layer_bytes, ret_error) < 0 ||
        file_open(dir, LAYER_FILE, O_RDWR | O_CREAT | O_EXCL, &to, ret_error) < 0)
        return -1;
    if (disk_copy(from, to) < 0)
        return error_set(ret_error, ERROR_IO, errno, "copy '%s'", path);
    if (mark_write(to, ret_error) < 0 ||
        pages_each(to, LAYER_FILE, meta->layer_bytes, page_count, NULL, meta->layer_sha256, &bytes,
                   ret_error) < 0)
        return -1;
    *ret_bytes += bytes;
    return fsync(to) < 0 ? error_set(ret_error, ERROR_IO, errno, "sync '%s'", LAYER_FILE) : 0;
}

static int meta_save(int dir, const struct template_meta *meta, struct error **ret_error)
{
    CLEANUP_FREE char *text = template_meta_write(meta);
    CLEANUP_FD int fd = -1;
    if (!text) /* JSON is UTF-8; what it depends on are paths and words of settings */
        return error_set(ret_error, ERROR_INVALID, 0,
                         "what the template depends on is not UTF-8: %s",
                         meta->inputs ? meta->inputs[0] : "");
    if (file_open(dir, META_FILE, O_WRONLY | O_CREAT | O_EXCL, &fd, ret_error) < 0 ||
        write_whole(fd, META_FILE, (const uint8_t *)text, strlen(text), 0, ret_error) < 0)
        return -1;
    return fsync(fd) < 0 ? error_set(ret_error, ERROR_IO, errno, "sync '%s'", META_FILE) : 0;
}

/* At no moment is there no whole template of that name, if there was one. */
static int directory_place(const char *dir, const char *path, struct error **ret_error)
{
    const char *slash = strrchr(path, '/');
    CLEANUP_FREE char *parent = slash ? xstrndup(path, (size_t)(slash - path)) : xstrdup("");
    CLEANUP_FD int fd = open(*parent ? parent : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool replaced = renameat2(AT_FDCWD, dir, AT_FDCWD, path, RENAME_EXCHANGE) == 0;
    if (!replaced && rename(dir, path) < 0)
        return error_set(ret_error, ERROR_IO, errno, "rename '%s' to '%s'", dir, path);
    if (fd < 0 || fsync(fd) < 0)
        return error_set(ret_error, ERROR_IO, errno, "sync '%s'", parent);
    return replaced ? disk_remove(parent, dir, ret_error) : 0;
}

int template_save(const struct template_save *save, uint64_t *ret_bytes, struct error **ret_error)
{
    struct template_meta meta = {.inputs = (char **)(uintptr_t)save->inputs};
    CLEANUP_FD int fd = open(save->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "open '%s'", save->dir);
    if (state_save(fd, &meta, ret_error) < 0 ||
        ram_save(fd, save->memory, &meta, ret_bytes, ret_error) < 0 ||
        layer_save(fd, save->layer, &meta, ret_bytes, ret_error) < 0 ||
        meta_save(fd, &meta, ret_error) < 0)
        return -1;
    if (fsync(fd) < 0)
        return error_set(ret_error, ERROR_IO, errno, "sync '%s'", save->dir);
    *ret_bytes += meta.state_bytes;
    return directory_place(save->dir, save->path, ret_error);
}

/* ---- loading -------------------------------------------------------------------------------- */

static int meta_load(int dir, struct template_meta *ret, struct error **ret_error)
{
    CLEANUP_FREE char *text = xmalloc(TEMPLATE_META_MAX + 1);
    CLEANUP_FD int fd = -1;
    CLEANUP_ERROR struct error *error = NULL;
    if (file_open(dir, META_FILE, O_RDONLY, &fd, ret_error) < 0)
        return -1;
    size_t size = 0;
    for (ssize_t n = 1; n > 0 && size <= TEMPLATE_META_MAX; size += n > 0 ? (size_t)n : 0) {
        n = TEMP_FAILURE_RETRY(read(fd, text + size, TEMPLATE_META_MAX + 1 - size));
        if (n < 0)
            return error_set(ret_error, ERROR_IO, errno, "read '%s'", META_FILE);
    }
    if (template_meta_parse(text, size, ret, &error) == 0)
        return 0;
    error_wrap(&error, "%s", META_FILE);
    return error_move(ret_error, &error);
}

static int inputs_check(const struct template_meta *meta, const char *const *inputs,
                        struct error **ret_error)
{
    size_t count = strv_count(inputs);
    bool same = strv_count((const char *const *)meta->inputs) == count;
    for (size_t i = 0; same && i < count; i++)
        same = str_eq(meta->inputs[i], inputs[i]);
    return same ? 0 : error_set(ret_error, ERROR_CORRUPT, 0, "it was made of something else");
}

static int state_check(int dir, const struct template_meta *meta, struct error **ret_error)
{
    CLEANUP_FD int fd = -1;
    uint64_t size = 0;
    char found[TEMPLATE_HEX + 1];
    if (file_open(dir, STATE_FILE, O_RDONLY, &fd, ret_error) < 0 ||
        file_size(fd, STATE_FILE, &size, ret_error) < 0)
        return -1;
    if (size != meta->state_bytes)
        return error_set(ret_error, ERROR_CORRUPT, 0, "'%s' has %llu bytes instead of %llu",
                         STATE_FILE, (unsigned long long)size,
                         (unsigned long long)meta->state_bytes);
    if (state_digest(fd, size, found, ret_error) < 0)
        return -1;
    if (strcmp(found, meta->state_sha256) != 0)
        return error_set(ret_error, ERROR_CORRUPT, 0, "'%s' is not what was saved", STATE_FILE);
    return 0;
}

static int page_place(void *arg, uint64_t at, const uint8_t *data, struct error **ret_error)
{
    memcpy((uint8_t *)arg + at, data, PAGE);
    return 0;
}

/* Huge pages that are missing would end us by a signal: they are asked for first. */
static int huge_pages_reserve(int memory, uint64_t size, struct error **ret_error)
{
    struct statfs fs;
    if (fstatfs(memory, &fs) < 0 || fs.f_type != HUGETLBFS_MAGIC)
        return 0;
    if (fallocate(memory, 0, 0, (off_t)size) < 0)
        return error_set(ret_error, ERROR_NO_SPACE, errno, "huge pages of %llu bytes",
                         (unsigned long long)size);
    return 0;
}

static int ram_load(int dir, int memory, const struct template_meta *meta, uint64_t *ret_bytes,
                    struct error **ret_error)
{
    CLEANUP_FD int fd = -1;
    uint64_t size = 0, ram = 0;
    char found[TEMPLATE_HEX + 1];
    if (memory_size(memory, &size, ret_error) < 0 ||
        file_open(dir, RAM_FILE, O_RDONLY, &fd, ret_error) < 0 ||
        file_size(fd, RAM_FILE, &ram, ret_error) < 0)
        return -1;
    if (ram != meta->ram_bytes || ram != size)
        return error_set(ret_error, ERROR_CORRUPT, 0, "'%s' has %llu bytes instead of %llu",
                         RAM_FILE, (unsigned long long)ram, (unsigned long long)size);
    if (huge_pages_reserve(memory, size, ret_error) < 0)
        return -1;
    void *to = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (to == MAP_FAILED)
        return error_set(ret_error, ERROR_IO, errno, "map the memory");
    int result = pages_each(fd, RAM_FILE, size, page_place, to, found, ret_bytes, ret_error);
    munmap(to, size);
    if (result == 0 && strcmp(found, meta->ram_sha256) != 0)
        return error_set(ret_error, ERROR_CORRUPT, 0, "'%s' is not what was saved", RAM_FILE);
    return result;
}

static int layer_check(int dir, const struct template_meta *meta, uint64_t *ret_bytes,
                       struct error **ret_error)
{
    CLEANUP_FD int fd = -1;
    uint64_t size = 0, bytes = 0;
    char found[TEMPLATE_HEX + 1];
    if (!meta->layer_bytes)
        return 0;
    if (file_open(dir, LAYER_FILE, O_RDONLY, &fd, ret_error) < 0 ||
        file_size(fd, LAYER_FILE, &size, ret_error) < 0)
        return -1;
    if (size != meta->layer_bytes)
        return error_set(ret_error, ERROR_CORRUPT, 0, "'%s' has %llu bytes instead of %llu",
                         LAYER_FILE, (unsigned long long)size,
                         (unsigned long long)meta->layer_bytes);
    if (pages_each(fd, LAYER_FILE, size, page_count, NULL, found, &bytes, ret_error) < 0)
        return -1;
    if (strcmp(found, meta->layer_sha256) != 0)
        return error_set(ret_error, ERROR_CORRUPT, 0, "'%s' is not what was saved", LAYER_FILE);
    *ret_bytes += bytes;
    return 0;
}

int template_load(int memory, const char *path, const char *const *inputs, uint64_t *ret_bytes,
                  struct error **ret_error)
{
    struct template_meta meta;
    CLEANUP_FD int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (dir < 0)
        return error_set(ret_error, ERROR_IO, errno, "open '%s'", path);
    if (meta_load(dir, &meta, ret_error) < 0)
        return -1;
    int result = inputs_check(&meta, inputs, ret_error);
    if (result == 0)
        result = state_check(dir, &meta, ret_error);
    if (result == 0)
        result = ram_load(dir, memory, &meta, ret_bytes, ret_error);
    if (result == 0)
        result = layer_check(dir, &meta, ret_bytes, ret_error);
    if (result == 0)
        *ret_bytes += meta.state_bytes;
    template_meta_done(&meta);
    return result;
}
