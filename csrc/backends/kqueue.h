/* kqueue.h: what the files of the backend kqueue share: kqueue.c, kqueue_entries.c and
 * kqueue_wait.c. */
#ifndef FDMUX_KQUEUE_H
#define FDMUX_KQUEUE_H

/* As in list.def. */
#if defined(__APPLE__) || defined(__FreeBSD__) || defined(__OpenBSD__) ||              \
    defined(__NetBSD__) || defined(FDMUX_KQUEUE)
#define FDMUX__HAS_KQUEUE 1
#else
#define FDMUX__HAS_KQUEUE 0
#endif

#include "backend.h"

#if FDMUX__HAS_KQUEUE

#include <stdbool.h>

#include "../platform/sys_kqueue.h"
#include "polled.h"

/* No node has these tokens; FDMUX__WAKE_TOKEN is 1. They are idents of timers and user
 * events, too. */
#define FDMUX__PARK_TOKEN UINT64_C(2)
#define FDMUX__HOST_TOKEN UINT64_C(3)

/* As backend_index: the node is no socket, and so has no urgent data. */
#define FDMUX__NO_SOCKET UINT32_MAX

/* Systems without EVFILT_EXCEPT (FreeBSD, NetBSD) refuse it as any unknown filter, and
 * poll(2) reports urgent data. */
#if defined(EVFILT_EXCEPT) && defined(NOTE_OOB)
#define FDMUX__FILTER_PRIORITY EVFILT_EXCEPT
#define FDMUX__FFLAGS_PRIORITY NOTE_OOB
#else
#define FDMUX__FILTER_PRIORITY 0x7f
#define FDMUX__FFLAGS_PRIORITY 0
#endif

struct fdmux__kqueue {
    int kq;
    uint32_t fork_generation; /* of the process that opened it */
    bool is_hosted;
    bool has_no_timer; /* the kernel refused one */
    bool is_due; /* the host was told to dispatch at once (arm) */
    bool is_device_turn; /* devices are reported first this time */
    struct fdmux__polled devices; /* what kqueue cannot watch; entry 0 is the kqueue */
    struct kevent *entries;
    int entry_capacity;
    int room; /* events that the next wait may report */
    uint32_t *positions; /* by slot of a node: where its event is, perhaps (merge) */
    uint32_t position_count;
};

/* A change, or what it registers. */
struct kevent fdmux__kqueue_entry(uint64_t ident, int filter, unsigned flags,
                                  uint64_t token);
/* Make the node's entries, which are those of node->mask, those of `mask`. 0; -ENOENT
 * or -EBADF, and then there are none; or -errno, and then nothing has changed. */
int fdmux__kqueue_change(const struct fdmux_loop *loop, const struct fdmux__node *node,
                         uint32_t mask);
/* Make them those of `mask`, whatever they are. If the kernel refuses something, the
 * next change finds it missing. */
void fdmux__kqueue_restore(const struct fdmux_loop *loop,
                           const struct fdmux__node *node, uint32_t mask);
/* Report `token` once at the deadline, in place of the last one; INT64_MAX for never.
 */
int fdmux__kqueue_deadline(const struct fdmux_loop *loop, uint64_t token,
                           int64_t deadline_ns);
/* Report `token` once and at once, or do not. */
int fdmux__kqueue_due(const struct fdmux_loop *loop, uint64_t token, bool is_due);

/* As in backend.h. */
int fdmux__kqueue_prepare(struct fdmux_loop *loop, int capacity);
int fdmux__kqueue_wait(struct fdmux_loop *loop, int64_t timeout_ns, int capacity);

#endif

#endif
