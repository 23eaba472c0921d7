/* The user and group files of an image, as the guest reads them. Input: three strings, each ended
 * by a zero byte: the wanted user, passwd, group. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "init/user.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *parts[3];
    const char *at = (const char *)data, *end = at + size;
    struct user user;

    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        size_t n = at < end ? strnlen(at, (size_t)(end - at)) : 0;
        parts[i] = xstrndup(at, n);
        at += at + n < end ? n + 1 : n;
    }
    user_resolve(&user, parts[1], parts[2], parts[0], NULL, NULL);
    user_done(&user);
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        free(parts[i]);
    return 0;
}
