/* kqueue_model.c: a model of kqueue(2) on Linux, so that the tests of the core run over
 * kqueue.c.
 *
 * Written from the manual pages of FreeBSD, macOS, OpenBSD and NetBSD; no BSD kernel
 * was at hand, so it shows that kqueue.c keeps these rules, not that a kernel does.
 * The rules, kqueue(2) unless noted:
 *
 * - A knote is a pair (ident, filter). EV_ADD of a known pair changes its udata, but
 *   not EV_CLEAR. EV_DELETE and EV_ENABLE of an unknown pair are ENOENT.
 * - READ and WRITE are separate, and report the state at the time of the call.
 * - EV_EOF on READ: the peer has shut down, or no writer is left; on WRITE: the own
 * side was shut down, or no reader is left. `fflags` is then the error of a socket.
 * - EV_CLEAR: reported once for each change of state.
 * - EV_RECEIPT: an EV_ERROR entry for each change, `data` 0 for success, and no wait.
 * - close(2) removes the knotes of that number, whatever else refers to the file.
 * - A kqueue is not inherited by a child of fork(2).
 * - EVFILT_TIMER is relative; EV_ADD of a running one leaves it as it is (some systems
 *   do); a time of 0 or less is EINVAL (some systems never fire it).
 * - Devices are EINVAL, as terminals are on macOS.
 *
 * A kqueue is an outer epoll set with one inner set for each filter of descriptors,
 * because such a set holds a descriptor once. */
#define _GNU_SOURCE
#include "kqueue_model.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "model_state.h"

#define NS_PER_S INT64_C(1000000000)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct queue queues[QUEUE_MAX];
static atomic_bool shut_fds[SHUT_MAX]; /* by shutdown(2), for writing */
void model_close(int fd)
{
    (void)syscall(SYS_close, fd);
}

bool model_is_shut(int fd)
{
    return fd >= 0 && fd < SHUT_MAX && atomic_load(&shut_fds[fd]);
}

/* No lock: kevent(2) with NOTE_TRIGGER is called in signal handlers. */
static struct queue *queue_of(int kq)
{
    for (int i = 0; i < QUEUE_MAX && kq > 0; i++) {
        if (atomic_load(&queues[i].kq) == kq)
            return &queues[i];
    }
    return NULL;
}

int kqueue_model_hidden_fds(void)
{
    int count = 0;

    pthread_mutex_lock(&lock);
    for (int i = 0; i < QUEUE_MAX; i++) {
        if (queues[i].kq == 0)
            continue;
        count += SET_COUNT;
        for (int t = 0; t < IDENT_MAX; t++)
            count += (queues[i].timers[t].fd >= 0 ? 1 : 0) +
                     (queues[i].user_fds[t] != 0 ? 1 : 0);
    }
    pthread_mutex_unlock(&lock);
    return count;
}

/* ---- kqueue(2), kevent(2) -------------------------------------------------------- */

/* Must be called with the lock held. */
static void drop_queue(struct queue *queue)
{
    for (int i = 0; i < SET_COUNT; i++) {
        model_close(queue->sets[i]);
        free(queue->knotes[i]);
        queue->knotes[i] = NULL;
    }
    for (int i = 0; i < IDENT_MAX; i++) {
        model_drop_timer(queue, (uintptr_t)i);
        model_drop_user(queue, (uintptr_t)i);
    }
    queue->capacity = queue->first_set = 0;
    queue->kq = 0;
}

static void lock_for_fork(void)
{
    pthread_mutex_lock(&lock);
}

static void unlock_after_fork(void)
{
    pthread_mutex_unlock(&lock);
}

static void forget_in_child(void)
{
    for (int i = 0; i < QUEUE_MAX; i++) {
        if (queues[i].kq == 0)
            continue;
        model_close(queues[i].kq);
        drop_queue(&queues[i]);
    }
    pthread_mutex_unlock(&lock);
}

__attribute__((constructor)) static void watch_forks(void)
{
    (void)pthread_atfork(lock_for_fork, unlock_after_fork, forget_in_child);
}

static int open_queue(struct queue *queue)
{
    int kq = epoll_create1(0); /* kqueue(2): without close-on-exec */

    *queue = (struct queue){.kq = kq};
    for (int i = 0; i < IDENT_MAX; i++)
        queue->timers[i].fd = -1;
    for (int i = 0; i < SET_COUNT && kq >= 0; i++) {
        queue->sets[i] = epoll_create1(EPOLL_CLOEXEC);
        if (model_watch(queue, queue->sets[i]) != 0)
            abort(); /* the tests do not go that far */
    }
    if (kq < 0)
        queue->kq = 0;
    return kq;
}

int kqueue(void)
{
    int kq = -1;
    int i = 0;

    pthread_mutex_lock(&lock);
    while (i < QUEUE_MAX && queues[i].kq != 0)
        i++;
    errno = EMFILE;
    if (i < QUEUE_MAX)
        kq = open_queue(&queues[i]);
    pthread_mutex_unlock(&lock);
    return kq;
}

/* Apply the changes. Returns how many entries it has written, or -1 with errno. */
static int change_all(struct queue *queue, const struct kevent *changes, int count,
                      struct kevent *events, int capacity)
{
    int written = 0;
    int error = 0;

    for (int i = 0; i < count && error == 0; i++) {
        error = model_change(queue, &changes[i]);
        if (error == 0 && (changes[i].flags & EV_RECEIPT) == 0)
            continue;
        if (written == capacity)
            break;
        events[written] = changes[i];
        events[written].flags = EV_ERROR;
        events[written++].data = error;
        error = 0;
    }
    errno = error;
    return error == 0 ? written : -1;
}

static int64_t now(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static int wait_for(struct queue *queue, struct kevent *events, int capacity,
                    const struct timespec *timeout)
{
    int64_t deadline =
        timeout == NULL ? 0 : now() + timeout->tv_sec * NS_PER_S + timeout->tv_nsec;
    struct pollfd outer = {.fd = queue->kq, .events = POLLIN};

    for (;;) {
        int64_t left = timeout == NULL ? 0 : deadline - now();
        struct timespec rest = {left / NS_PER_S, left % NS_PER_S};
        int count;

        pthread_mutex_lock(&lock);
        count = model_scan(queue, events, capacity);
        pthread_mutex_unlock(&lock);
        if (count > 0 || (timeout != NULL && left <= 0))
            return count;
        if (ppoll(&outer, 1, timeout == NULL ? NULL : &rest, NULL) < 0)
            return -1;
    }
}

int kevent(int kq, const struct kevent *changes, int change_count,
           struct kevent *events, int event_count, const struct timespec *timeout)
{
    struct queue *queue = queue_of(kq);
    int r;

    if (queue == NULL) {
        errno = EBADF;
        return -1;
    }
    if (change_count == 1 && event_count == 0 && changes[0].filter == EVFILT_USER) {
        errno =
            model_trigger(queue, changes[0].ident); /* without the lock: see queue_of */
        return errno == 0 ? 0 : -1;
    }
    pthread_mutex_lock(&lock);
    r = change_all(queue, changes, change_count, events, event_count);
    pthread_mutex_unlock(&lock);
    return r != 0 || event_count == 0 ? r
                                      : wait_for(queue, events, event_count, timeout);
}

/* ---- close(2), dup2(2), shutdown(2) ---------------------------------------------- */

/* In place of those of libc. */
static void forget_fd(int fd)
{
    struct queue *own;

    if (model_is_shut(fd))
        atomic_store(&shut_fds[fd], false);
    pthread_mutex_lock(&lock);
    own = queue_of(fd);
    if (own != NULL)
        drop_queue(own);
    for (int i = 0; i < QUEUE_MAX; i++) {
        for (int set = 0; set < SET_COUNT && queues[i].kq != 0; set++) {
            if (fd >= 0 && fd < queues[i].capacity && queues[i].knotes[set][fd].is_used)
                model_drop_knote(&queues[i], set, fd);
        }
    }
    pthread_mutex_unlock(&lock);
}

int close(int fd)
{
    forget_fd(fd);
    return (int)syscall(SYS_close, fd);
}

int dup3(int old_fd, int new_fd, int flags)
{
    if (old_fd != new_fd)
        forget_fd(new_fd);
    return (int)syscall(SYS_dup3, old_fd, new_fd, flags);
}

int dup2(int old_fd, int new_fd)
{
    return old_fd == new_fd ? new_fd : dup3(old_fd, new_fd, 0);
}

int shutdown(int fd, int how)
{
    if (fd >= 0 && fd < SHUT_MAX && how != SHUT_RD)
        atomic_store(&shut_fds[fd], true);
    return (int)syscall(SYS_shutdown, fd, how);
}
