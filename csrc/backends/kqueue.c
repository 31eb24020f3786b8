/* kqueue.c: the backend of macOS and the BSDs, over kqueue(2).
 *
 * The files kqueue*.c are the only ones that know it. The kqueue itself is the pollable
 * descriptor: deadlines and wakes are entries, too. Descriptors that it cannot watch
 * are served by poll(2) beside it. */
#include "kqueue.h"

#if FDMUX__HAS_KQUEUE

#include <errno.h>

#include "../core/gate.h"

static struct fdmux__kqueue *data_of(const struct fdmux_loop *loop)
{
    return loop->backend_data;
}

/* ---- devices --------------------------------------------------------------------- */

/* kqueue(2) of macOS: EINVAL for terminals and other devices, and for fifos of some
 * file systems; ENODEV on FreeBSD, EOPNOTSUPP on NetBSD, for a device whose driver has
 * no filter. EINVAL also stands for a filter that the system lacks. */
static bool is_unwatchable(int r)
{
    return r == -EINVAL || r == -ENODEV || r == -EOPNOTSUPP;
}

static int open_devices(struct fdmux__kqueue *data)
{
    return data->devices.master.count > 0
               ? 0
               : fdmux__polled_open(&data->devices, data->kq, FDMUX__HOST_TOKEN);
}

/* Watch by poll(2) what kqueue has refused with `error`. A host cannot: it watches the
 * kqueue alone. */
static int watch_device(struct fdmux_loop *loop, struct fdmux__node *node,
                        uint32_t mask, int error)
{
    struct fdmux__kqueue *data = data_of(loop);
    uint32_t index;
    int r;

    if ((mask & FDMUX_EDGE) != 0)
        return error == -EINVAL ? -EOPNOTSUPP : error;
    if (data->is_hosted || node->fd >= FDMUX__DEVICE_FD_MAX ||
        data->kq >= FDMUX__DEVICE_FD_MAX)
        return error == -EINVAL ? -EPERM : error;
    r = open_devices(data);
    if (r < 0)
        return r;
    index = node->backend_index;
    node->backend_index = 0;
    r = fdmux__polled_update(loop, &data->devices, node, mask);
    if (r < 0)
        node->backend_index = index;
    else if (node->mask != 0)
        fdmux__kqueue_restore(loop, node, 0);
    return r;
}

static int update_device(struct fdmux_loop *loop, struct fdmux__node *node,
                         uint32_t mask)
{
    struct fdmux__polled *devices = &data_of(loop)->devices;

    if ((mask & FDMUX_EDGE) != 0)
        return -EOPNOTSUPP;
    if (mask == 0 || fdmux__sys_check_fd(node->fd) == 0)
        return fdmux__polled_update(loop, devices, node, mask);
    (void)fdmux__polled_update(loop, devices, node, 0); /* cannot fail for 0 */
    return -EBADF;
}

/* A node is registered for the first time. */
static int check_kind(const struct fdmux_loop *loop, struct fdmux__node *node)
{
    int kind = fdmux__sys_kind(node->fd);

    if (node->fd == data_of(loop)->kq)
        return -EINVAL;
    /* kqueue(2) reports a file while it is not at its end; epoll_ctl(2): EPERM. */
    if (kind == FDMUX__KIND_FILE)
        return -EPERM;
    node->backend_index = kind == FDMUX__KIND_SOCKET ? 0 : FDMUX__NO_SOCKET;
    return kind < 0 ? kind : 0;
}

static int kqueue_update(struct fdmux_loop *loop, struct fdmux__node *node,
                         uint32_t mask)
{
    int r = 0;

    if ((mask & FDMUX_EXCLUSIVE) != 0)
        return -EOPNOTSUPP;
    if (node->backend_index != 0 && node->backend_index != FDMUX__NO_SOCKET)
        return update_device(loop, node, mask);
    if (mask == 0) {
        if (node->mask != 0) /* close(2) may have removed its entries */
            (void)fdmux__kqueue_change(loop, node, 0);
        return 0;
    }
    if (node->mask == 0)
        r = check_kind(loop, node);
    if (r == 0)
        r = fdmux__kqueue_change(loop, node, mask);
    return is_unwatchable(r) ? watch_device(loop, node, mask, r) : r;
}

/* ---- deadlines ------------------------------------------------------------------- */

static int kqueue_park(struct fdmux_loop *loop, int64_t deadline_ns)
{
    return fdmux__kqueue_deadline(loop, FDMUX__PARK_TOKEN, deadline_ns);
}

static int kqueue_arm(struct fdmux_loop *loop, int64_t deadline_ns)
{
    struct fdmux__kqueue *data = data_of(loop);
    bool was_due = data->is_due;

    if (data->has_no_timer)
        return -EOPNOTSUPP;
    data->is_due = deadline_ns <= fdmux__sys_now();
    if (data->is_due) {
        (void)fdmux__kqueue_deadline(loop, FDMUX__HOST_TOKEN, INT64_MAX);
        return fdmux__kqueue_due(loop, FDMUX__HOST_TOKEN, true);
    }
    if (was_due)
        (void)fdmux__kqueue_due(loop, FDMUX__HOST_TOKEN, false);
    return fdmux__kqueue_deadline(loop, FDMUX__HOST_TOKEN, deadline_ns);
}

/* Without a timer (FreeBSD, kern.kq_calloutmax) the host has to use
 * fdmux_loop_next_deadline. */
static int kqueue_host_fd(struct fdmux_loop *loop)
{
    struct fdmux__kqueue *data = data_of(loop);

    if (data->is_hosted)
        return data->kq;
    if (data->devices.master.count > 1)
        return -EOPNOTSUPP;
    data->is_hosted = true;
    data->has_no_timer =
        fdmux__kqueue_deadline(loop, FDMUX__HOST_TOKEN, INT64_MAX - 1) < 0;
    (void)fdmux__kqueue_deadline(loop, FDMUX__HOST_TOKEN, INT64_MAX);
    return data->kq;
}

/* ---- wakes ----------------------------------------------------------------------- */

/* OpenBSD before 7.8 has no EVFILT_USER; its loops have a bell. */
#if defined(EVFILT_USER)
static int kqueue_ring(struct fdmux_loop *loop)
{
    struct kevent change =
        fdmux__kqueue_entry(0, (int)EVFILT_USER, 0, FDMUX__WAKE_TOKEN);

    change.fflags = NOTE_TRIGGER;
    return fdmux__sys_kevent_trigger(data_of(loop)->kq, &change);
}
#endif

static int watch_wakes(const struct fdmux_loop *loop)
{
#if defined(EVFILT_USER)
    struct kevent change =
        fdmux__kqueue_entry(0, (int)EVFILT_USER, EV_ADD | EV_CLEAR, FDMUX__WAKE_TOKEN);
#else
    struct kevent change = fdmux__kqueue_entry(
        (uint64_t)loop->bell.read_fd, (int)EVFILT_READ, EV_ADD, FDMUX__WAKE_TOKEN);
#endif
    int r;

    fdmux__sys_kevent_change(data_of(loop)->kq, &change, 1, &r);
    return r;
}

/* ---- life ------------------------------------------------------------------------ */

/* kqueue(2): a child of fork(2) does not inherit it. There the number is free, or that
 * of another file. */
static void kqueue_close(struct fdmux_loop *loop)
{
    struct fdmux__kqueue *data = data_of(loop);

    if (data == NULL)
        return;
    if (data->kq >= 0 && data->fork_generation == fdmux__fork_generation())
        (void)fdmux__sys_close(data->kq); /* released whatever it returns */
    fdmux__polled_close(&data->devices);
    fdmux__sys_free(data->entries);
    fdmux__sys_free(data->positions);
    fdmux__sys_free(data);
    loop->backend_data = NULL;
}

static int kqueue_open(struct fdmux_loop *loop)
{
    struct fdmux__kqueue *data = fdmux__sys_calloc(1, sizeof *data);
    int r;

    if (data == NULL)
        return -ENOMEM;
    loop->backend_data = data;
    data->fork_generation = fdmux__fork_generation();
    data->kq = fdmux__sys_kqueue();
    r = data->kq < 0 ? data->kq : watch_wakes(loop);
    if (r < 0)
        kqueue_close(loop);
    return r;
}

static uint32_t kqueue_features(const struct fdmux_loop *loop)
{
    return FDMUX_FEATURE_FD | FDMUX_FEATURE_EDGE | FDMUX_FEATURE_NANOSECONDS |
           (data_of(loop)->has_no_timer ? 0 : FDMUX_FEATURE_TIMER_IN_FD);
}

const struct fdmux__backend fdmux__backend_kqueue = {
    .name = "kqueue",
    .entries_per_node = 2, /* of READ and WRITE; the third is rare */
    .open = kqueue_open,
    .close = kqueue_close,
    .update = kqueue_update,
    .prepare = fdmux__kqueue_prepare,
    .wait = fdmux__kqueue_wait,
    .host_fd = kqueue_host_fd,
    .arm = kqueue_arm,
    .park = kqueue_park,
#if defined(EVFILT_USER)
    .ring = kqueue_ring,
#endif
    .features = kqueue_features,
};

#endif
