/* Any text as a registry's challenge, as credentials and as a token server's answer. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/base64.h"
#include "base/str.h"
#include "image/auth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_FREE char *text = xstrndup((const char *)data, size);
    struct challenge challenge;
    struct credentials credentials;

    free(token_parse(text, strlen(text), NULL));
    free(base64_decode(text));
    if (challenge_parse(text, &challenge, NULL) == 0) {
        if (challenge.scheme == CHALLENGE_BEARER)
            free(token_url(&challenge, challenge.scope, "user"));
        challenge_done(&challenge);
    }
    if (credentials_parse(text, &credentials, NULL) == 0)
        credentials_done(&credentials);
    if (credentials_find(text, strlen(text), "h", &credentials, NULL) == 0)
        credentials_done(&credentials);
    return 0;
}
