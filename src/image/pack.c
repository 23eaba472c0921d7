#include "image/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <isa-l/igzip_lib.h>
#include <openssl/evp.h>

#include "base/str.h"
#include "image/place.h"

enum { OUT_SIZE = 256 << 10, FILE_MODE = 0644 };

struct layer_pack {
    int fd;
    struct isal_zstream stream;
    uint8_t level[ISAL_DEF_LVL1_DEFAULT];
    uint8_t out[OUT_SIZE];
    EVP_MD_CTX *digest, *diff_id;
    uint64_t size;
};

struct layer_pack *layer_pack_new(const char *path, struct error **ret_error)
{
    struct layer_pack *pack = xcalloc(1, sizeof(*pack));

    isal_deflate_init(&pack->stream);
    pack->stream.gzip_flag = IGZIP_GZIP;
    pack->stream.level = 1;
    pack->stream.level_buf = pack->level;
    pack->stream.level_buf_size = sizeof(pack->level);
    pack->digest = EVP_MD_CTX_new();
    pack->diff_id = EVP_MD_CTX_new();
    pack->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    if (pack->fd < 0)
        error_set(ret_error, ERROR_IO, errno, "make '%s'", path);
    else if (!pack->digest || !EVP_DigestInit_ex(pack->digest, EVP_sha256(), NULL) ||
             !pack->diff_id || !EVP_DigestInit_ex(pack->diff_id, EVP_sha256(), NULL))
        error_set(ret_error, ERROR_INTERNAL, 0, "sha256 cannot be set up");
    else
        return pack;
    layer_pack_free(pack);
    return NULL;
}

static int out_write(struct layer_pack *pack, size_t size, struct error **ret_error)
{
    EVP_DigestUpdate(pack->digest, pack->out, size);
    pack->size += size;
    for (size_t done = 0; done < size;) {
        ssize_t n = TEMP_FAILURE_RETRY(write(pack->fd, pack->out + done, size - done));
        if (n <= 0)
            return error_set(ret_error, ERROR_IO, n < 0 ? errno : ENOSPC, "write the layer");
        done += (size_t)n;
    }
    return 0;
}

/* Until all of the input is taken and, at the end, all of the output is out. */
static int deflate(struct layer_pack *pack, struct error **ret_error)
{
    struct isal_zstream *stream = &pack->stream;

    do {
        stream->next_out = pack->out;
        stream->avail_out = OUT_SIZE;
        if (isal_deflate(stream) != COMP_OK)
            return error_set(ret_error, ERROR_INTERNAL, 0, "the layer cannot be compressed");
        if (out_write(pack, OUT_SIZE - stream->avail_out, ret_error) < 0)
            return -1;
    } while (stream->avail_in > 0 || stream->avail_out == 0 ||
             (stream->end_of_stream && stream->internal_state.state != ZSTATE_END));
    return 0;
}

int layer_pack_write(struct layer_pack *pack, const void *data, size_t size,
                     struct error **ret_error)
{
    EVP_DigestUpdate(pack->diff_id, data, size);
    pack->stream.next_in = (uint8_t *)(uintptr_t)data;
    pack->stream.avail_in = (uint32_t)size;
    return deflate(pack, ret_error);
}

int layer_pack_end(struct layer_pack *pack, struct layer_packed *ret, struct error **ret_error)
{
    uint8_t digest[SHA256_SIZE], diff_id[SHA256_SIZE];

    pack->stream.end_of_stream = 1;
    pack->stream.avail_in = 0;
    if (deflate(pack, ret_error) < 0)
        return -1;
    if (!EVP_DigestFinal_ex(pack->digest, digest, NULL) ||
        !EVP_DigestFinal_ex(pack->diff_id, diff_id, NULL))
        return error_set(ret_error, ERROR_INTERNAL, 0, "sha256 cannot be finished");
    *ret = (struct layer_packed){.size = pack->size};
    str_hex(ret->digest, digest, sizeof(digest));
    str_hex(ret->diff_id, diff_id, sizeof(diff_id));
    return 0;
}

void layer_pack_free(struct layer_pack *pack)
{
    if (!pack)
        return;
    if (pack->fd >= 0)
        close(pack->fd);
    EVP_MD_CTX_free(pack->digest);
    EVP_MD_CTX_free(pack->diff_id);
    free(pack);
}
