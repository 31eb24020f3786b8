/* sys_kqueue.c: see sys_kqueue.h. */
#define _GNU_SOURCE
/* NOLINTNEXTLINE(bugprone-reserved-identifier,readability-identifier-naming) */
#define _DARWIN_UNLIMITED_SELECT
#include "sys_kqueue.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "testing.h"

/* itimerfix(9) of older BSDs: longer timeouts are EINVAL. Three years. */
#define WAIT_MAX_NS (INT64_C(100000000) * FDMUX__NS_PER_S)

#if defined(__NetBSD__)
typedef size_t entry_count;
#else
typedef int entry_count;
#endif

/* kqueue(2): a child of fork(2) does not inherit it, so no thread can let it slip into
 * another program before the flag is set. */
int fdmux__sys_kqueue(void)
{
    int fault = fdmux__fault(FDMUX_CALL_KQUEUE);
    int kq = fault != 0 ? -1 : kqueue();

    if (kq < 0)
        return fault != 0 ? fault : -errno;
    (void)fcntl(kq, F_SETFD, FD_CLOEXEC); /* cannot fail for an open descriptor */
    return kq;
}

#if defined(EV_RECEIPT) && !defined(FDMUX_KQUEUE_EMULATED)
/* kqueue(2), EV_RECEIPT: an EV_ERROR entry for each change, `data` 0 for success, and
 * no pending events. The entries overwrite the changes, in their order. */
static void change_all(int kq, struct kevent *changes, int count, int *ret_results)
{
    const struct timespec no_time = {0, 0};
    int r;

    for (int i = 0; i < count; i++)
        changes[i].flags |= EV_RECEIPT;
    r = kevent(kq, changes, (entry_count)count, changes, (entry_count)count, &no_time);
    for (int i = 0; i < count; i++)
        ret_results[i] = r < 0 ? -errno : -(int)changes[i].data;
}
#else
/* kqueue(2): without room for an EV_ERROR entry, the call fails with the error. */
static void change_all(int kq, struct kevent *changes, int count, int *ret_results)
{
    const struct timespec no_time = {0, 0};

    for (int i = 0; i < count; i++) {
        int r = kevent(kq, &changes[i], 1, NULL, 0, &no_time);

        ret_results[i] = r < 0 ? -errno : 0;
#if defined(FDMUX_KQUEUE_EMULATED)
        if (ret_results[i] == -EEXIST) /* of libkqueue: it was enabled already */
            ret_results[i] = 0;
#endif
    }
}
#endif

/* A change that tests let fail is left out. */
void fdmux__sys_kevent_change(int kq, struct kevent *changes, int count,
                              int *ret_results)
{
    int results[FDMUX__KEVENT_CHANGES_MAX] = {0};
    int made = 0;

    for (int i = 0; i < count; i++) {
        ret_results[i] = fdmux__fault(FDMUX_CALL_KEVENT);
        if (ret_results[i] == 0)
            changes[made++] = changes[i];
    }
    if (made > 0)
        change_all(kq, changes, made, results);
    made = 0;
    for (int i = 0; i < count; i++) {
        if (ret_results[i] == 0)
            ret_results[i] = results[made++];
    }
}

int fdmux__sys_kevent_wait(int kq, struct kevent *events, int capacity,
                           int64_t timeout_ns)
{
    int64_t limited_ns = timeout_ns > WAIT_MAX_NS ? WAIT_MAX_NS : timeout_ns;
    struct timespec timeout = fdmux__posix_timespec(limited_ns < 0 ? 0 : limited_ns);
    int fault = fdmux__fault(FDMUX_CALL_WAIT);

    return fault != 0
               ? fault
               : fdmux__posix_result(kevent(kq, NULL, 0, events, (entry_count)capacity,
                                            timeout_ns < 0 ? NULL : &timeout));
}

/* For tests it is the write(2) by which other backends are woken. */
int fdmux__sys_kevent_trigger(int kq, const struct kevent *change)
{
    int errno_before = errno;
    int r;

    do {
        r = fdmux__fault(FDMUX_CALL_WRITE);
        if (r == 0)
            r = fdmux__posix_result(kevent(kq, change, 1, NULL, 0, NULL));
    } while (r == -EINTR);
    errno = errno_before;
    return r;
}

int fdmux__sys_kind(int fd)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return -errno;
    if (S_ISSOCK(status.st_mode))
        return FDMUX__KIND_SOCKET;
    return S_ISREG(status.st_mode) || S_ISDIR(status.st_mode) ? FDMUX__KIND_FILE
                                                              : FDMUX__KIND_OTHER;
}

/* ---- devices --------------------------------------------------------------------- */

#if defined(__APPLE__) || defined(FDMUX_KQUEUE_MODEL)
/* poll(2) of macOS, BUGS: "does not support devices"; select(2) does. The bits of an
 * fd_set are those of an array of bytes, as the processors of macOS are little-endian;
 * _DARWIN_UNLIMITED_SELECT lifts the bound of FD_SETSIZE. */
struct bits {
    unsigned char bytes[FDMUX__DEVICE_FD_MAX / 8];
};

static bool has_bit(const struct bits *bits, int fd)
{
    return (bits->bytes[fd / 8] >> (fd % 8) & 1) != 0;
}

static void set_bit(struct bits *bits, int fd, bool is_wanted)
{
    unsigned bit = is_wanted ? 1U << (fd % 8) : 0;

    bits->bytes[fd / 8] = (unsigned char)(bits->bytes[fd / 8] | bit);
}

/* select(2) fails with EBADF for all of them if one is closed. */
static int mark_closed(fdmux__pollfd *fds, size_t count)
{
    int closed = 0;

    for (size_t i = 0; i < count; i++) {
        bool is_closed = fdmux__sys_check_fd(fds[i].fd) < 0;

        fds[i].revents = is_closed ? POLLNVAL : 0;
        closed += is_closed ? 1 : 0;
    }
    return closed;
}

static int read_bits(fdmux__pollfd *fds, size_t count, const struct bits *sets)
{
    int ready = 0;

    for (size_t i = 0; i < count; i++) {
        int revents = (has_bit(&sets[0], fds[i].fd) ? POLLIN : 0) |
                      (has_bit(&sets[1], fds[i].fd) ? POLLOUT : 0) |
                      (has_bit(&sets[2], fds[i].fd) ? POLLPRI : 0);

        fds[i].revents = (short)(revents & fds[i].events);
        ready += fds[i].revents != 0 ? 1 : 0;
    }
    return ready;
}

int fdmux__sys_poll_devices(fdmux__pollfd *fds, size_t count, int64_t timeout_ns)
{
    int64_t us = timeout_ns > WAIT_MAX_NS
                     ? WAIT_MAX_NS / 1000
                     : timeout_ns / 1000 + (timeout_ns > 0 ? 1 : 0);
    struct timeval timeout = {0};
    struct bits sets[3] = {0};
    int fault = fdmux__fault(FDMUX_CALL_WAIT);
    int last = 0;
    int r;

    if (fault != 0)
        return fault;
    timeout.tv_sec = (time_t)(us / 1000000);
    timeout.tv_usec = (suseconds_t)(us % 1000000);
    for (size_t i = 0; i < count; i++) {
        set_bit(&sets[0], fds[i].fd, (fds[i].events & POLLIN) != 0);
        set_bit(&sets[1], fds[i].fd, (fds[i].events & POLLOUT) != 0);
        set_bit(&sets[2], fds[i].fd, (fds[i].events & POLLPRI) != 0);
        last = fds[i].fd > last ? fds[i].fd : last;
    }
    r = fdmux__posix_result(
        select(last + 1, (fd_set *)(void *)&sets[0], (fd_set *)(void *)&sets[1],
               (fd_set *)(void *)&sets[2], timeout_ns < 0 ? NULL : &timeout));
    if (r == -EBADF)
        return mark_closed(fds, count);
    return r < 0 ? r : read_bits(fds, count, sets);
}
#else
int fdmux__sys_poll_devices(fdmux__pollfd *fds, size_t count, int64_t timeout_ns)
{
    return fdmux__sys_poll(fds, count, timeout_ns);
}
#endif
