#include "disk/output_digest.h"

#include <string.h>

#include <openssl/evp.h>

static int no_digest(struct error **ret_error)
{
    return error_set(ret_error, ERROR_INTERNAL, 0, "SHA-256 does not work");
}

static int digest_add(void *arg, const void *data, size_t size, struct error **ret_error)
{
    return EVP_DigestUpdate(arg, data, size) ? 0 : no_digest(ret_error);
}

int output_digest(int (*write)(void *arg, const struct disk_output *out, struct error **ret_error),
                  void *arg, uint8_t ret[OUTPUT_DIGEST_SIZE], struct error **ret_error)
{
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    const struct disk_output out = {digest_add, digest, UINT64_MAX};
    int result = digest && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) ? 0 : no_digest(ret_error);

    memset(ret, 0, OUTPUT_DIGEST_SIZE);
    if (result == 0)
        result = write(arg, &out, ret_error);
    if (result == 0 && !EVP_DigestFinal_ex(digest, ret, NULL))
        result = no_digest(ret_error);
    EVP_MD_CTX_free(digest);
    return result;
}
