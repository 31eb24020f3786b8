/* kqueue_entries.c: what the kernel is told: entries of nodes, and deadlines.
 *
 * A node has an entry for each filter that its mask needs. Sources: kqueue(2) of
 * FreeBSD 14, macOS 14, OpenBSD 7.6 and NetBSD 10; they differ where a comment names
 * one. */
#include "kqueue.h"

#if FDMUX__HAS_KQUEUE

#include <errno.h>

/* Tokens are 63 bits and travel in `udata`, a pointer. */
_Static_assert(sizeof(((struct kevent *)0)->udata) >= sizeof(uint64_t),
               "the backend kqueue needs pointers of 64 bits");

/* Timers for later end sooner, and are set again: some systems refuse long ones. */
#define TIMER_MAX_NS (FDMUX__NS_PER_S * 86400)

enum { SIDE_READ, SIDE_WRITE, SIDE_PRIORITY, SIDE_COUNT };

static int kq_of(const struct fdmux_loop *loop)
{
    return ((const struct fdmux__kqueue *)loop->backend_data)->kq;
}

/* The members have other types on each system. */
struct kevent fdmux__kqueue_entry(uint64_t ident, int filter, unsigned flags,
                                  uint64_t token)
{
    struct kevent change = {0};

    change.ident = (uintptr_t)ident;
    change.filter = (__typeof__(change.filter))filter;
    change.flags = (__typeof__(change.flags))flags;
    change.udata = (__typeof__(change.udata))(uintptr_t)token;
    return change;
}

static struct kevent make_side(const struct fdmux_loop *loop,
                               const struct fdmux__node *node, int side, unsigned flags)
{
    static const int filters[] = {(int)EVFILT_READ, (int)EVFILT_WRITE,
                                  (int)FDMUX__FILTER_PRIORITY};
    struct kevent change =
        fdmux__kqueue_entry((uint64_t)node->fd, filters[side], flags,
                            fdmux__slots_token(&loop->nodes, node->index));

    if (side == SIDE_PRIORITY)
        change.fflags = FDMUX__FFLAGS_PRIORITY;
    return change;
}

/* What a filter is registered with for a mask; 0 for not at all. A node that does not
 * want READ may still want to know of the end, which READ reports; EV_CLEAR then
 * reports unread data once, and not at each wait. */
static unsigned flags_for(const struct fdmux__node *node, uint32_t mask, int side)
{
    bool is_socket = node->backend_index != FDMUX__NO_SOCKET;
    unsigned flags = EV_ADD | ((mask & FDMUX_EDGE) != 0 ? (unsigned)EV_CLEAR : 0);

    if (side == SIDE_WRITE)
        return (mask & FDMUX_WRITE) != 0 ? flags : 0;
    if (side == SIDE_PRIORITY)
        return (mask & FDMUX_PRIORITY) != 0 && is_socket ? flags : 0;
    if ((mask & FDMUX_READ) != 0)
        return flags;
    if (mask == 0 || (mask & (FDMUX_WRITE | FDMUX_PEER_CLOSED)) == FDMUX_WRITE)
        return 0;
    return EV_ADD | EV_CLEAR;
}

/* kqueue(2): EV_ADD of an entry that is there changes neither EV_CLEAR, nor does it
 * report on every system what is ready already. So such an entry is deleted first. The
 * others are enabled, which they are: the answer says whether they are there. */
static int plan_side(const struct fdmux_loop *loop, const struct fdmux__node *node,
                     int side, uint32_t mask, struct kevent *changes)
{
    unsigned before = flags_for(node, node->mask, side);
    unsigned after = flags_for(node, mask, side);
    bool is_same = before == after && (after & EV_CLEAR) == 0;
    int count = 0;

    if (before != 0)
        changes[count++] = make_side(loop, node, side, is_same ? EV_ENABLE : EV_DELETE);
    if (after != 0 && !is_same)
        changes[count++] = make_side(loop, node, side, after);
    return count;
}

/* Make the node's entries those of `mask`, whatever they are. Without an answer: if
 * something is refused, the next update finds it missing. */
void fdmux__kqueue_restore(const struct fdmux_loop *loop,
                           const struct fdmux__node *node, uint32_t mask)
{
    struct kevent changes[2 * SIDE_COUNT];
    int results[2 * SIDE_COUNT];
    int count = 0;

    for (int side = 0; side < SIDE_COUNT; side++) {
        unsigned flags = flags_for(node, mask, side);

        changes[count++] = make_side(loop, node, side, EV_DELETE);
        if (flags != 0)
            changes[count++] = make_side(loop, node, side, flags);
    }
    fdmux__sys_kevent_change(kq_of(loop), changes, count, results);
}

/* close(2) removes the entries of a number. So if one is missing (ENOENT), the number
 * means another file by now. The first answer decides: without the old entry the new
 * one was made for that file. */
int fdmux__kqueue_change(const struct fdmux_loop *loop, const struct fdmux__node *node,
                         uint32_t mask)
{
    struct kevent changes[2 * SIDE_COUNT];
    int results[2 * SIDE_COUNT];
    int count = 0;
    int r = 0;

    for (int side = 0; side < SIDE_COUNT; side++)
        count += plan_side(loop, node, side, mask, &changes[count]);
    fdmux__sys_kevent_change(kq_of(loop), changes, count, results);
    for (int i = 0; i < count && r == 0; i++)
        r = results[i];
    if (r == -ENOENT || r == -EBADF || (r < 0 && mask == 0))
        fdmux__kqueue_restore(loop, node, 0);
    else if (r < 0)
        fdmux__kqueue_restore(loop, node, node->mask);
    return r;
}

/* ---- timers ---------------------------------------------------------------------- */

/* kqueue(2), EVFILT_TIMER: relative, since an absolute time means the time of day on
 * macOS (NOTE_ABSOLUTE) and on the BSDs (NOTE_ABSTIME). */
static struct kevent make_timer(uint64_t token, int64_t left_ns)
{
    struct kevent change =
        fdmux__kqueue_entry(token, (int)EVFILT_TIMER, EV_ADD | EV_ONESHOT, token);

    left_ns = left_ns < 1 ? 1 : left_ns > TIMER_MAX_NS ? TIMER_MAX_NS : left_ns;
#if defined(NOTE_NSECONDS)
    change.fflags = NOTE_NSECONDS;
    change.data = left_ns;
#else
    change.data = (left_ns + FDMUX__NS_PER_MS - 1) / FDMUX__NS_PER_MS;
#endif
    return change;
}

/* Report `token` once at the deadline, in place of the last one. Some systems ignore
 * EV_ADD of a running timer, so that one is deleted first, if it has not expired. */
int fdmux__kqueue_deadline(const struct fdmux_loop *loop, uint64_t token,
                           int64_t deadline_ns)
{
    struct kevent changes[2] = {
        fdmux__kqueue_entry(token, (int)EVFILT_TIMER, EV_DELETE, token),
        make_timer(token, deadline_ns - fdmux__sys_now()),
    };
    int results[2] = {0};

    fdmux__sys_kevent_change(kq_of(loop), changes, deadline_ns == INT64_MAX ? 1 : 2,
                             results);
    return results[1];
}

/* A timer would take a moment. Without EVFILT_USER (OpenBSD before 7.8), the writing
 * end of the bell is always ready. */
int fdmux__kqueue_due(const struct fdmux_loop *loop, uint64_t token, bool is_due)
{
#if defined(EVFILT_USER)
    const uint64_t ident = token;
    const int filter = (int)EVFILT_USER;
#else
    const uint64_t ident = (uint64_t)loop->bell.write_fd;
    const int filter = (int)EVFILT_WRITE;
#endif
    struct kevent changes[3] = {
        fdmux__kqueue_entry(ident, filter, EV_DELETE, token),
        fdmux__kqueue_entry(ident, filter, EV_ADD | EV_ONESHOT, token),
    };
    int results[3] = {0};
    int count = is_due ? 2 : 1;

#if defined(EVFILT_USER)
    changes[2] = fdmux__kqueue_entry(ident, filter, 0, token);
    changes[2].fflags = NOTE_TRIGGER;
    count += is_due ? 1 : 0;
#endif
    fdmux__sys_kevent_change(kq_of(loop), changes, count, results);
    return results[1] < 0 ? results[1] : results[2];
}

#endif
