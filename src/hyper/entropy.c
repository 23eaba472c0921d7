/* Part of husk-qemu.so: where QEMU has random numbers from.
 *
 * By gnutls_rnd(3) it answers the guest's RDRAND, and serves its virtio-rng. gnutls has a generator
 * for each thread, and hears of a fork only by pthread_atfork(3), which a zygote's does not go
 * through: all copies would go on with the same numbers. The kernel's are the state of none of
 * them.
 */
#include <errno.h>
#include <stddef.h>
#include <sys/random.h>

enum { GNUTLS_E_RANDOM_FAILED = -206 };

int gnutls_rnd(int level, void *data, size_t size); /* as in gnutls/crypto.h */

int gnutls_rnd(int level, void *data, size_t size)
{
    for (char *to = data, *end = to + size; to < end;) {
        ssize_t n = getrandom(to, (size_t)(end - to), 0);
        if (n < 0 && errno != EINTR)
            return GNUTLS_E_RANDOM_FAILED;
        to += n > 0 ? n : 0;
    }
    return 0;
}
