/* sockaddr.h: numeric addresses as the kernel's structures. Resolves no name, since
 * that blocks. Knows nothing about loops. */
#ifndef FDMUX_SOCKADDR_H
#define FDMUX_SOCKADDR_H

#include <stddef.h>
#include <stdint.h>

#include "../platform/sys.h"

union fdmux__sockaddr {
    struct sockaddr generic;
    struct sockaddr_in inet;
    struct sockaddr_in6 inet6;
    struct sockaddr_un local;
};

/* Parse an IPv4 or IPv6 address. Returns 0 or -EINVAL. */
int fdmux__sockaddr_parse(const char *host, uint16_t port,
                          union fdmux__sockaddr *ret_address, socklen_t *ret_size);
/* The same for a Unix path; it is abstract if it begins with a NUL. */
int fdmux__sockaddr_from_path(const char *path, size_t length,
                              union fdmux__sockaddr *ret_address, socklen_t *ret_size);

#endif
