/* Templates: guests that were booted once, and of which VMs are cloned. Shared by the files of this
 * room only.
 *
 *             ┌──────────────── inputs changed, removed ───────────────┐
 *             ▼                                                        │
 *          absent ── its files are there ──► loading ── checked ──► ready
 *             │ ▲                               │                      ▲ │
 *             │ └────────── corrupt ────────────┘                      │ │
 *             └── nothing else starts ──► building ── saved ───────────┘ │
 *                      ▲                     │                           │
 *          after a pause, or asked for       └──► bad ◄── a clone failed ┘
 *
 * absent    nothing of it is in memory. `wanted`: it will be loaded or built
 * loading   a worker reads its files into `memory`
 * building  template_make.c boots, rehearses, freezes and saves it: one at a time
 * ready     `memory` is a sealed memfd, and its files are in <template_dir>/<id>
 * bad       VMs boot cold; it is built again after a pause that doubles
 *
 * A generic template is a guest without a pod. One *of an image* was cloned of a generic one, and
 * has the root of a container of that image mounted, over a writable layer of the usual size that
 * nothing was written to since. A VM is cloned of it if one of its pod's containers has a layer
 * that is still byte for byte the template's: `head` tells.
 *
 * A template is a cache: it is in no store, and what is true of it is its files, which are checked
 * whenever they are loaded.
 */
#ifndef HUSK_EXEC_TEMPLATE_H
#define HUSK_EXEC_TEMPLATE_H

#include "exec/exec_int.h"

enum template_state {
    TEMPLATE_ABSENT,
    TEMPLATE_LOADING,
    TEMPLATE_BUILDING,
    TEMPLATE_READY,
    TEMPLATE_BAD,
    TEMPLATE_STATE_COUNT,
};

enum {
    TEMPLATE_MEMORY_MIN = 48 << 20,
    TEMPLATE_MEMORY_STEP = 2 << 20, /* of virtio-mem: a huge page */
    /* What is compared of a layer: its mark, which a VM loses when it gets the layer from its
     * template, and its superblock, which changes whenever anybody mounts it. */
    LAYER_HEAD_SIZE = LAYER_MARK_SIZE + 1024,
};

#define TEMPLATE_IMAGE_PREFIX "image-"

struct make;
struct zygote;

enum zygote_state { ZYGOTE_ABSENT, ZYGOTE_MAKING, ZYGOTE_READY, ZYGOTE_BAD, ZYGOTE_STATE_COUNT };

struct template
{
    struct template *prev, *next;
    struct exec *exec;
    char id[TEMPLATE_ID_MAX + 1];
    uint64_t base_bytes;
    char *image;                   /* id of the image that is in it; NULL: it is generic */
    uint8_t head[LAYER_HEAD_SIZE]; /* of an image, ready: how its layer begins */
    char **inputs;                 /* "name=value": all that it depends on */
    enum template_state state;
    bool wanted;                 /* absent: to be loaded or built */
    unsigned turn;               /* the least is built first; 0: a VM could have used it */
    bool built_by_request;       /* the pause after a failure does not count */
    char *reason;                /* bad: why, a sentence; else of the last time or NULL */
    int memory;                  /* ready, bad: the sealed memfd; loading: not sealed; -1: none */
    uint64_t disk_bytes;         /* of its files */
    int64_t created_ns, used_ns; /* wall clock; 0: never */
    uint64_t clones;             /* VMs that said hello, since the daemon started */
    unsigned starting;           /* VMs that are being cloned of it */
    bool files_doomed;           /* its files go when `starting` is 0 */
    uint32_t failures;           /* in a row */
    struct timer *pause;         /* bad: until it is tried again */
    struct job *job;             /* loading */
    struct make *make;           /* building */
    struct zygote *zygote;       /* always */
};

struct templates {
    struct exec *exec;
    struct template *list;
    bool begun;
    int lock;            /* of template_dir: one daemon a directory */
    char *unusable;      /* why there are no templates; NULL: there are */
    char *circumstances; /* the inputs that all templates have in common */
    struct timer *look;  /* something may be done now */
    struct template *making;
    struct zygote *warming; /* the one that is being made */
};

/* ---- template_id.c: what a template depends on ---------------------------------------------- */

/* "name=value", of one whose guest boots with so much memory; 0 leaves the memory out. Owned. */
char **template_inputs(const struct exec_config *config, const char *accel, uint64_t base_bytes);
/* Of one that is cloned of a generic one of such inputs. Owned. */
char **template_image_inputs(const struct exec_config *config, const char *const *generic,
                             const struct image *image);
/* "image-0123456789ab-01234567": the beginning of the image's id, and a hash. */
void template_image_id_make(const char *const *inputs, const struct image *image,
                            char ret[TEMPLATE_ID_MAX + 1]);
/* "128-0123456789abcdef": the memory in MiB, and a hash of the inputs. It is a name only: whoever
 * loads a template compares the inputs themselves. */
void template_id_make(const char *const *inputs, uint64_t base_bytes,
                      char ret[TEMPLATE_ID_MAX + 1]);
/* The memory that such a name tells; false if it is none. */
bool template_id_read(const char *id, uint64_t *ret_base_bytes);

/* ---- template.c ----------------------------------------------------------------------------- */

struct templates *templates_new(struct exec *exec);
/* Nothing of them is under way any more, and nothing begins. Links may still tell of clones. */
void templates_end(struct templates *templates);
/* After that, and after the last link. */
void templates_free(struct templates *templates);
/* Something may be loaded or built now, or removed. */
void templates_look(struct templates *templates);

/* The template that a VM is to be cloned of. NULL: it boots cold, and *ret_why says why (a
 * sentence, owned; NULL: templates are switched off). *ret_wait: not now, for its template is just
 * being loaded, or, of a VM that nobody waits for, made; the line is looked at again then. */
struct template *template_choose(struct exec *exec, const struct vm *vm, char **ret_why,
                                 bool *ret_wait);
/* A q35 is given more memory and CPUs while it runs; a microvm cannot. */
bool template_may_grow(const struct exec_config *config);
/* Virtual CPUs that a clone can grow to. */
uint32_t template_cpus_max(const struct exec_config *config, const char *accel);
/* The memory of a clone that is to have at least so much: it grows in steps. */
uint64_t template_memory_of(const struct template *t, uint64_t memory_bytes);
struct template *template_find(const struct exec *exec, const char *id);
/* A VM begins to be cloned of it, and has said hello or not. */
void template_clone_begins(struct template *t);
void template_clone_ends(struct template *t, bool hello);
/* A clone of it failed: it is used no more. */
void template_blame(struct template *t, const char *why);
/* The cold boot failed too: it was not the template. */
void template_absolve(struct template *t);
/* The cold boot did not fail: it was the template. Nobody, not even the next daemon, uses its files
 * again. */
void template_convict(struct template *t);

/* What became of its making: takes the memory (-1 with an error). */
void template_made(struct template *t, int memory, uint64_t disk_bytes, const struct error *error);
/* Its state or step is another one: whoever follows is told. */
void template_changed(const struct template *t);

/* The generic template of that memory: perhaps new; or NULL if there is none. */
struct template *template_of_base(struct exec *exec, uint64_t base_bytes);
struct template *template_find_base(const struct exec *exec, uint64_t base_bytes);
/* A new one in the table, absent; the inputs are taken over. NULL: it is generic. */
struct template *template_new(struct exec *exec, uint64_t base_bytes, const struct image *image,
                              char **inputs);
/* Whether a VM of so much memory can be cloned of it. */
bool template_serves(const struct template *t, uint64_t memory_bytes);
/* When an input changes, what was made of the old one is of no use. */
void templates_check(struct templates *templates);
void template_free(struct template *t);
/* Its memory and its files go. */
void template_drop(struct template *t);
/* Whether one of an image would find room, or make it. */
bool template_has_room(const struct exec *exec);
/* What was not used since then gives way, on the wall clock. */
int64_t templates_evictable(void);

/* ---- template_image.c: templates of images --------------------------------------------------- */

/* The one of an image that is cloned of a generic one: perhaps new. */
struct template *template_of_image(const struct template *generic, const struct image *image);
/* A VM is about to be cloned of a generic template: one of an image that serves it better, with the
 * container whose root is in that; or the generic one, with none. */
struct template *template_choose_rooted(struct template *generic, const struct vm *vm,
                                        struct ref *ret_ctr);
/* Of its image, relative to the root; "" if that is gone. Owned. */
char *template_image_file(const struct template *t);
const struct image *template_image(const struct template *t);
/* Whether a layer, relative to the root, is still the copy of the template's that it was. */
bool template_layer_fits(const struct template *t, const char *layer);
/* Reads how its layer begins; before it is ready. */
int template_head_read(struct template *t, struct error **ret_error);
/* A directory of that name was found: it is wanted, or of no use (false). */
bool template_image_found(struct templates *ts, const char *name);
/* Forgets those of images that are neither there nor wanted. */
void template_images_trim(struct templates *ts);

/* ---- template_host.c: memory and files ------------------------------------------------------- */

/* ERROR_NO_SPACE if the host has no room for its memory once more. */
int template_has_memory(const struct template *t, struct error **ret_error);
/* A memfd for its memory, not sealed. ERROR_NO_SPACE if the host has no room for it. */
int template_memory_make(const struct template *t, int *ret_fd, struct error **ret_error);
/* From now on nobody can change it, not even a QEMU that was broken into. */
int template_memory_seal(int fd, struct error **ret_error);
/* "TEMPLATE_DIR/ID"; owned. */
char *template_path(const struct template *t);
/* A name for a VM of our own, KIND and "ID-xxxx", that none had before: what is left of an earlier
 * one may still be about to be removed by its name. Owned. */
char *template_vm_name(const struct template *t, const char *kind);
/* The name in TEMPLATE_DIR where it is put together; owned. */
char *template_stage(const struct template *t);
/* Whether its files are there, and since when. */
bool template_files_look(struct template *t);
/* They were used now. */
void template_files_touch(const struct template *t);
/* Removes what has that name in TEMPLATE_DIR. */
void template_files_remove(struct exec *exec, const char *name);
/* Makes and locks TEMPLATE_DIR: what another daemon puts together in it is not ours to remove. -1,
 * and templates->unusable, if it cannot be used. */
int template_directory_take(struct templates *ts);
/* What is in it and could be loaded is wanted; all else of ours goes. */
void template_files_scan(struct templates *ts);

/* ---- template_make.c ------------------------------------------------------------------------ */

/* Ends in template_made(), never before it returns. */
void template_make(struct template *t);
/* Stops where it is; leaves nothing. template_made() is not called. */
void template_make_cancel(struct template *t);
/* What is being done, for people. */
const char *template_make_step(const struct template *t);

/* ---- zygote.c ------------------------------------------------------------------------------- */

struct zygote *zygote_new(struct template *t);
void zygote_free(struct zygote *z);
/* Its process ends: the template goes. */
void zygote_end(struct zygote *z);
/* It would be of use, and is made when nothing else starts and there is room. */
void zygote_want(struct zygote *z);
/* Somebody waits for it: another one that was used just now gives way. */
void zygote_ask_for(struct zygote *z);
/* Makes the next one that is wanted. Whether there is one. */
bool zygotes_work(struct templates *ts);
bool zygotes_are_made(const struct exec *exec);
/* Tells the core, which has loaded its world again, whom they serve. */
void zygotes_tell(const struct templates *ts);
/* Or the same of an image's, when one of its templates is ready or is so no more. */
void zygotes_tell_of(const struct exec *exec, const char *image_id);
bool zygote_is_ready(const struct zygote *z);
/* Of one that is ready, absolute: whoever is to be a copy knocks there. Owned. */
char *zygote_directory(const struct zygote *z);
/* A copy of it failed: it is used no more. Or did not. */
void zygote_blame(struct zygote *z, const char *why);
void zygote_praise(struct zygote *z);
void zygote_info(const struct zygote *z, struct template_info *ret);

#endif
