/* sockaddr.c: see sockaddr.h. */
#include "sockaddr.h"

#include <errno.h>
#include <string.h>

int fdmux__sockaddr_parse(const char *host, uint16_t port,
                          union fdmux__sockaddr *ret_address, socklen_t *ret_size)
{
    memset(ret_address, 0, sizeof *ret_address);
    if (inet_pton(AF_INET, host, &ret_address->inet.sin_addr) == 1) {
        ret_address->inet.sin_family = AF_INET;
        ret_address->inet.sin_port = htons(port);
        *ret_size = sizeof ret_address->inet;
        return 0;
    }
    memset(ret_address, 0, sizeof *ret_address);
    if (inet_pton(AF_INET6, host, &ret_address->inet6.sin6_addr) == 1) {
        ret_address->inet6.sin6_family = AF_INET6;
        ret_address->inet6.sin6_port = htons(port);
        *ret_size = sizeof ret_address->inet6;
        return 0;
    }
    return -EINVAL;
}

int fdmux__sockaddr_from_path(const char *path, size_t length,
                              union fdmux__sockaddr *ret_address, socklen_t *ret_size)
{
    struct sockaddr_un *local = &ret_address->local;

    if (length == 0 || length >= sizeof local->sun_path)
        return -EINVAL;
    memset(ret_address, 0, sizeof *ret_address);
    local->sun_family = AF_UNIX;
    memcpy(local->sun_path, path, length);
    /* unix(7): each byte of an abstract name counts, so the size is exact; that of a
     * path includes its NUL. */
    *ret_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length +
                            (path[0] == '\0' ? 0 : 1));
    return 0;
}
