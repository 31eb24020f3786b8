/* What the programs of hosted/ call in C: one handler, reached as a native watcher of
 * fdmux, from a Python callback through cffi, or from a bare epoll loop.
 *
 * All of it is for one thread. Addresses are numbers: what a capsule of fdmux holds
 * (fdmux_python.h). Functions return 0, or -errno. */
#ifndef FDMUX_BENCHMARKS_HOSTED_H
#define FDMUX_BENCHMARKS_HOSTED_H

#include <stdint.h>

/* The handler: counts, and reads nothing, so the descriptor stays ready. When as many
 * have been handled as were expected, one is written to the eventfd given with it. */
void hosted_handle(int fd);
void hosted_expect(int64_t count, int done_fd);
int64_t hosted_handled(void);

/* A native watcher for each descriptor, or none for any; and its end. */
int hosted_watch(uintptr_t api, uintptr_t loop, const int *fds, int count,
                 uint64_t *ret_tokens);
int hosted_unwatch(uintptr_t api, uintptr_t loop, const uint64_t *tokens, int count);

/* epoll_wait(2) and the handler, until as many as expected were handled. */
int hosted_epoll(const int *fds, int count);

#endif
