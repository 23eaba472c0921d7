/* The suite that every storage driver must pass. Its parts share this.
 *
 * A rig is a driver at work on a root of its own, with archives beside it. A view is a container's
 * root as its guest sees it, mounted on this machine. Whatever fails is said as a line of TAP and
 * ends that test, not the program.
 */
#ifndef HUSK_TESTS_DISK_SUITE_H
#define HUSK_TESTS_DISK_SUITE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"
#include "disk/disk.h"

struct archive;

struct rig {
    struct disk disk;
    char *root;
    char *archives;
    uint64_t layer_bytes; /* of a writable layer, if a test does not care; 0: it has none */
};

/* A layer that is being written. */
struct tar {
    struct archive *archive;
    char *path;
    char digest[DISK_DIGEST_HEX + 1];
};

/* What an entry of a layer may have; zero is a plain file of root's. */
struct entry {
    const char *path;
    unsigned mode; /* with the type; 0: a file 0644 */
    unsigned uid, gid;
    long mtime;
    const char *link;     /* target of a symbolic link */
    const char *hardlink; /* path of another entry */
    unsigned major, minor;
    const char *xattr, *value; /* one extended attribute */
    const char *text;          /* content */
};

struct image {
    char id[DISK_DIGEST_HEX + 1];
    char *file; /* relative to the root */
    uint64_t size;
};

struct view {
    const struct rig *rig;
    char *layer;
    char *home; /* where things are mounted */
    char *top;  /* the container's root */
    bool layered;
};

/* ---- saying --------------------------------------------------------------------------------- */

extern int suite_failures;

/* Fails the test at work, with the place; returns whether it held. */
bool suite_check(bool held, const char *what, const char *file, int line);
/* For functions with an error: frees it, and says it if result is negative. */
bool suite_done(int result, struct error *error, const char *what, const char *file, int line);

/* The rest of a test makes no sense if this fails. */
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!suite_check((condition), #condition, __FILE__, __LINE__))                             \
            return;                                                                                \
    } while (0)
#define CHECK(condition) suite_check((condition), #condition, __FILE__, __LINE__)
/* call uses `error`. */
#define MUST_DO(call)                                                                              \
    do {                                                                                           \
        struct error *error = NULL;                                                                \
        int result_of_call = (call);                                                               \
        if (!suite_done(result_of_call, error, #call, __FILE__, __LINE__))                         \
            return;                                                                                \
    } while (0)

/* ---- rig.c ---------------------------------------------------------------------------------- */

/* A new rig in the directory `home`/`name`. */
struct rig *rig_new(const char *home, const char *name, const struct disk_ops *ops,
                    const char *const *options, uint64_t layer_bytes);
/* Removes all of it. */
void rig_free(struct rig *rig);

/* Entries of a layer: opened, filled, closed; the digest is of the whole. */
struct tar tar_open(const struct rig *rig, const char *name);
void tar_add(struct tar *tar, struct entry entry);
/* A file of `size` bytes: every `step` bytes there is a page of noise, zeros in between (which are
 * holes of the archive too). */
void tar_add_noise(struct tar *tar, const char *path, uint64_t size, uint64_t step);
void tar_close(struct tar *tar);
/* The digest of the file that is there. */
void tar_digest(struct tar *tar);
void tar_free(struct tar *tar);
/* The noise at `offset` of such a file. */
void noise_at(uint64_t offset, uint8_t page[4096]);

/* As a worker does: prepared in tmp, then linked to its place. */
int image_make(const struct rig *rig, const struct tar *layers, size_t count, const char *name,
               struct image *ret, struct error **ret_error);
/* As an image is removed: its file, then what that stood for. */
int image_remove(const struct rig *rig, const struct image *image, struct error **ret_error);
void image_done(struct image *image);

/* The layer of a container; its path is made of the name, the caller frees it. */
char *layer_path(const struct rig *rig, const char *name);
int layer_make(const struct rig *rig, const char *name, const struct image *image,
               uint64_t size_bytes, struct error **ret_error);
int layer_remove(const struct rig *rig, const char *name, struct error **ret_error);

/* Attaches the layer and mounts it as a guest does; view_close() undoes both. */
int view_open(const struct rig *rig, const struct image *image, const char *name, struct view *ret,
              struct error **ret_error);
int view_close(struct view *view, struct error **ret_error);
/* "TOP/path"; the caller frees it. */
char *view_path(const struct view *view, const char *path);
/* A file's content, or a link's target in "-> …", or "" if there is none. */
char *view_read(const struct view *view, const char *path);
bool view_has(const struct view *view, const char *path);
int view_write(const struct view *view, const char *path, const char *text);

/* Whether it is the errno of what has no room: a project quota of ext4 says EDQUOT. */
bool full_says(int err);

/* ---- the tests ------------------------------------------------------------------------------ */

struct test {
    const char *name;
    void (*run)(const struct rig *rig);
};

/* For every driver. */
extern const struct test tests_content[], tests_life[];
/* For those that hold a layer to a size; the second rig is small: a layer or the pool is soon
 * full. */
extern const struct test tests_sized[], tests_small[];
/* For those whose layers become images. */
extern const struct test tests_changes[];
/* Of the driver devicemapper alone. */
extern const struct test tests_dm[], tests_dm_small[];
/* Of the driver overlay alone. */
extern const struct test tests_overlay[];
/* Of it where the file system has project quotas. */
extern const struct test tests_quota[], tests_quota_usual[];

#endif
