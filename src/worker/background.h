/* An image's root that is prepared by a child process while its layers still come in.
 *
 * The child reads each layer's file as it grows; how far it has grown stands in memory that both
 * share. It dies with us, and if it does not end well, nothing of it counts.
 */
#ifndef HUSK_WORKER_BACKGROUND_H
#define HUSK_WORKER_BACKGROUND_H

#include <sys/types.h>

#include "disk/disk.h"
#include "image/load.h"

struct background {
    pid_t child; /* 0: none */
    int news;    /* from the child */
    int poke;    /* to the child: a layer has grown */
    struct background_layer *shared;
    size_t count;
};

/* *ret_fd is readable when background_attend() has something to say. */
int background_begin(struct background *b, const struct disk *disk, const char *id,
                     const struct image_layer *layers, size_t count, uint64_t layer_max_bytes,
                     const char *path, int *ret_fd, struct error **ret_error);
void background_feed(struct background *b, size_t layer, uint64_t bytes, bool whole);
/* The next of what the child told; ret->any is false if there is no more now. The child's failure
 * is ours. */
int background_attend(struct background *b, struct image_prepare_news *ret,
                      struct error **ret_error);
/* Ends it, if it is under way. */
void background_end(struct background *b);

#endif
