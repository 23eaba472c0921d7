/* Lines from QEMU's monitor: QEMU is not trusted more than the guest that may have taken it. */
#include "base/error.h"
#include "hyper/qmp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error *error = NULL;
    struct qmp_message m;
    if (qmp_message_parse((const char *)data, size, &m, &error) == 0)
        qmp_message_done(&m);
    error_free(error);
    return 0;
}
