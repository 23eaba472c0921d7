#include "image/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "base/str.h"
#include "image/manifest.h"
#include "image/place.h"

enum {
    FILE_ROOT = 0,
    FILE_CONFIG = 1,
    FILE_MANIFEST = 2,
    PIECE = 1 << 20,
    SHORT_ID = 12,
};

struct verifying {
    const struct image_verify *verify;
    char **good; /* blobs that were looked at: several images may have them … */
    char **bad;  /* … and what is wrong with it, after each */
    uint8_t *piece;
    bool places;
};

/* One image of the items. */
struct verified {
    const char *id; /* "sha256:…" */
    char **files;
    bool damaged;
};

static int tell(struct verifying *v, struct verified *image, const char *file, const char *message,
                bool repaired, struct error **ret_error)
{
    struct image_problem problem = {
        .image = image->id,
        .file = file,
        .message = message,
        .blob = file != image->files[FILE_ROOT],
        .repaired = repaired,
    };

    image->damaged = true;
    return v->verify->problem(v->verify->arg, &problem, ret_error);
}

static int places_take(struct verifying *v, struct error **ret_error)
{
    if (!v->places && v->verify->placing(v->verify->arg, ret_error) < 0)
        return -1;
    v->places = true;
    return 0;
}

/* ---- blobs ---------------------------------------------------------------------------------- */

/* The digest of an open blob; a positive errno: it cannot be read to its end. */
static int blob_hash(struct verifying *v, int fd, const char *hex, EVP_MD_CTX *hash,
                     struct error **ret_error)
{
    char id[SHORT_ID + 1];
    uint64_t done = 0;
    struct stat st;

    snprintf(id, sizeof(id), "%s", hex);
    if (fstat(fd, &st) < 0 || !EVP_DigestInit_ex(hash, EVP_sha256(), NULL))
        return error_set(ret_error, ERROR_IO, errno, "look at blob 'sha256:%s'", hex);
    for (;;) {
        ssize_t n = TEMP_FAILURE_RETRY(read(fd, v->piece, PIECE));
        if (n <= 0)
            return n < 0 ? errno : 0;
        EVP_DigestUpdate(hash, v->piece, (size_t)n);
        done += (uint64_t)n;
        if (v->verify->progress(v->verify->arg, id, "Verifying", done, (uint64_t)st.st_size,
                                ret_error) < 0)
            return -1;
    }
}

/* *ret: what is wrong, owned; NULL: nothing. */
static int blob_look(struct verifying *v, const char *file, char **ret, struct error **ret_error)
{
    CLEANUP_FREE char *path = str_printf("%s/%s", v->verify->root, file);
    const char *hex = strrchr(file, '/') + 1;
    uint8_t digest[SHA256_SIZE];
    char got[DIGEST_HEX + 1];
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    *ret = NULL;
    int result = fd < 0 ? errno : blob_hash(v, fd, hex, hash, ret_error);
    if (result > 0)
        *ret = result == ENOENT ? xstrdup("it is missing")
                                : str_printf("it cannot be read: %s", strerror(result));
    if (result == 0) {
        EVP_DigestFinal_ex(hash, digest, NULL);
        str_hex(got, digest, sizeof(digest));
        if (strcmp(got, hex) != 0)
            *ret = str_printf("its content has the digest 'sha256:%s'", got);
    }
    EVP_MD_CTX_free(hash);
    if (fd >= 0)
        close(fd);
    return result < 0 ? -1 : 0;
}

static const char *bad_find(const struct verifying *v, const char *file)
{
    for (char **at = v->bad; at && *at; at += 2)
        if (strcmp(*at, file) == 0)
            return at[1];
    return NULL;
}

static int blob_verify(struct verifying *v, struct verified *image, const char *file,
                       struct error **ret_error)
{
    const char *known = bad_find(v, file);
    CLEANUP_FREE char *wrong = NULL;

    if (known)
        return tell(v, image, file, known, false, ret_error);
    if (strv_contains((const char *const *)v->good, file))
        return 0;
    if (blob_look(v, file, &wrong, ret_error) < 0)
        return -1;
    if (!wrong) {
        strv_push(&v->good, file);
        return 0;
    }
    strv_push(&v->bad, file);
    strv_push(&v->bad, wrong);
    if (v->verify->repair) { /* what is there would be taken for it */
        CLEANUP_FREE char *path = str_printf("%s/%s", v->verify->root, file);
        if (places_take(v, ret_error) < 0)
            return -1;
        unlink(path);
    }
    return tell(v, image, file, wrong, false, ret_error);
}

/* ---- the root ------------------------------------------------------------------------------- */

static char *text_read(const struct verifying *v, const char *file, size_t max, size_t *ret_size)
{
    CLEANUP_FREE char *path = str_printf("%s/%s", v->verify->root, file);
    CLEANUP_FREE char *text = xcalloc(1, max + 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : TEMP_FAILURE_RETRY(read(fd, text, max));

    if (fd >= 0)
        close(fd);
    *ret_size = n < 0 ? 0 : (size_t)n;
    return n < 0 ? NULL : take(text);
}

static int layers_prepare(const struct verifying *v, const struct verified *image,
                          const struct oci_manifest *manifest, const struct image_config *config,
                          const char *fresh, struct error **ret_error)
{
    CLEANUP_FREE struct image_layer *layers = xcalloc(manifest->count + 1, sizeof(*layers));
    CLEANUP_STRV char **paths = NULL;
    uint64_t size;

    if (strv_count((const char *const *)config->diff_ids) != manifest->count)
        return error_set(ret_error, ERROR_CORRUPT, 0, "its config and its manifest disagree");
    for (size_t i = 0; i < manifest->count; i++)
        strv_push_take(
            &paths, str_printf("%s/blobs/sha256/%s", v->verify->root, manifest->layers[i].digest));
    for (size_t i = 0; i < manifest->count; i++)
        layers[i] = (struct image_layer){paths[i], config->diff_ids[i]};
    return v->verify->prepare(v->verify->arg, strchr(image->id, ':') + 1, layers, manifest->count,
                              fresh, &size, ret_error);
}

/* The root as its blobs, which are good, make it. */
static int fresh_make(const struct verifying *v, const struct verified *image, const char *fresh,
                      struct error **ret_error)
{
    struct oci_manifest manifest = {0};
    struct image_config config = {0};
    size_t size = 0;
    CLEANUP_FREE char *manifest_text =
        text_read(v, image->files[FILE_MANIFEST], MANIFEST_MAX, &size);

    int result = oci_manifest_parse(str_or(manifest_text, ""), size, &manifest, ret_error);
    CLEANUP_FREE char *config_text = text_read(v, image->files[FILE_CONFIG], CONFIG_MAX, &size);
    if (result == 0)
        result = image_config_parse(str_or(config_text, ""), size, &config, ret_error);
    if (result == 0)
        result = layers_prepare(v, image, &manifest, &config, fresh, ret_error);
    oci_manifest_done(&manifest);
    image_config_done(&config);
    return result;
}

/* The new one takes its name: who has the old one open keeps it. */
static int root_replace(struct verifying *v, const char *fresh, const char *path,
                        struct error **ret_error)
{
    if (places_take(v, ret_error) < 0)
        return -1;
    if (rename(fresh, path) < 0)
        return error_set(ret_error, ERROR_IO, errno, "replace '%s'", path);
    return 0;
}

static int root_verify(struct verifying *v, struct verified *image, struct error **ret_error)
{
    const char *file = image->files[FILE_ROOT];
    CLEANUP_FREE char *path = str_printf("%s/%s", v->verify->root, file);
    CLEANUP_FREE char *fresh = str_printf("%s/root", v->verify->scratch);
    bool there = access(path, F_OK) == 0, same = there, repair = v->verify->repair;
    int result = 0;

    if (image->damaged) /* nothing to make it of */
        return there ? 0 : tell(v, image, file, "it is missing", false, ret_error);
    if (there || repair)
        result = fresh_make(v, image, fresh, ret_error);
    if (result == 0 && there)
        result = v->verify->same(v->verify->arg, path, fresh, &same, ret_error);
    if (result == 0 && !same && repair)
        result = root_replace(v, fresh, path, ret_error);
    unlink(fresh);
    if (result < 0 || same)
        return result;
    return tell(v, image, file, there ? "it is not what its layers make" : "it is missing", repair,
                ret_error);
}

/* ---- all of them ---------------------------------------------------------------------------- */

static int image_look(struct verifying *v, struct verified *image, struct error **ret_error)
{
    if (strv_count((const char *const *)image->files) <= FILE_MANIFEST)
        return error_set(ret_error, ERROR_CORRUPT, 0, "it has no manifest in the store");
    for (char **file = image->files + FILE_CONFIG; *file; file++)
        if (blob_verify(v, image, *file, ret_error) < 0)
            return -1;
    return root_verify(v, image, ret_error);
}

int image_verify(const struct image_verify *verify, struct error **ret_error)
{
    struct verifying v = {.verify = verify, .piece = xmalloc(PIECE)};
    const char *const *item = verify->items;
    int result = 0;

    while (result == 0 && item && *item) {
        CLEANUP_ERROR struct error *error = NULL;
        struct verified image = {.id = *item + strlen("image:")};
        for (item++; *item && str_starts(*item, "file:"); item++)
            strv_push(&image.files, *item + strlen("file:"));
        result = image_look(&v, &image, &error);
        strv_free(image.files);
        if (result == 0)
            continue;
        error_wrap(&error, "image '%.19s'", image.id);
        error_move(ret_error, &error);
    }
    strv_free(v.good);
    strv_free(v.bad);
    free(v.piece);
    return result;
}
