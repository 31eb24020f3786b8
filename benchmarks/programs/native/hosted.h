/* The C functions that the programs of hosted/ call: one handler, reached as a native
 * watcher of fdmux, from a Python callback through cffi, or from a bare epoll loop.
 *
 * For one thread only. Addresses are integers: the content of a capsule of fdmux
 * (fdmux_python.h). Functions return 0, or -errno. */
#ifndef FDMUX_BENCHMARKS_HOSTED_H
#define FDMUX_BENCHMARKS_HOSTED_H

#include <stdint.h>

/* The handler counts calls and reads nothing, so the descriptor stays ready. When the
 * expected number has been handled, it writes one to the eventfd given with it. */
void hosted_handle(int fd);
void hosted_expect(int64_t count, int done_fd);
int64_t hosted_handled(void);

/* Add a native watcher for each descriptor, or for none; and remove them. */
int hosted_watch(uintptr_t api, uintptr_t loop, const int *fds, int count,
                 uint64_t *ret_tokens);
int hosted_unwatch(uintptr_t api, uintptr_t loop, const uint64_t *tokens, int count);

/* Call epoll_wait(2) and the handler until the expected number was handled. */
int hosted_epoll(const int *fds, int count);

#endif
