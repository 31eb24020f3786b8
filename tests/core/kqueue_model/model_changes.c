/* model_changes.c: what changes do, one by one (kqueue_model.c has the rules). */
#define _GNU_SOURCE
#include "kqueue_model.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "model_state.h"

#define NS_PER_S INT64_C(1000000000)

static _Atomic int refused_filter;
static _Atomic int refused_error;

void kqueue_model_refuse(int filter, int error)
{
    atomic_store(&refused_filter, filter);
    atomic_store(&refused_error, error);
}

/* ---- knotes of descriptors ------------------------------------------------------- */

static int set_of_filter(int filter)
{
    switch (filter) {
    case EVFILT_READ:
        return SET_READ;
    case EVFILT_WRITE:
        return SET_WRITE;
    case EVFILT_EXCEPT:
        return SET_EXCEPT;
    default:
        return -1;
    }
}

static const uint32_t interests[SET_COUNT] = {EPOLLIN | EPOLLRDHUP, EPOLLOUT, EPOLLPRI};

static int reserve(struct queue *queue, int fd)
{
    int capacity = queue->capacity == 0 ? 64 : queue->capacity;

    while (capacity <= fd)
        capacity *= 2;
    for (int set = 0; set < SET_COUNT && capacity > queue->capacity; set++) {
        struct knote *moved =
            realloc(queue->knotes[set], (size_t)capacity * sizeof *moved);

        if (moved == NULL)
            return ENOMEM;
        queue->knotes[set] = moved;
        for (int i = queue->capacity; i < capacity; i++)
            moved[i] = (struct knote){.is_used = false};
    }
    queue->capacity = capacity;
    return 0;
}

static int tell_set(struct queue *queue, int set, int fd, int operation)
{
    struct epoll_event event = {.events = interests[set], .data.fd = fd};

    if (queue->knotes[set][fd].is_clear)
        event.events |= EPOLLET;
    return epoll_ctl(queue->sets[set], operation, fd, &event) < 0 ? errno : 0;
}

void model_drop_knote(struct queue *queue, int set, int fd)
{
    (void)tell_set(queue, set, fd, EPOLL_CTL_DEL);
    queue->knotes[set][fd].is_used = false;
}

static int can_watch(int fd, int set)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return EBADF;
    if (S_ISCHR(status.st_mode) || S_ISREG(status.st_mode) ||
        (set == SET_EXCEPT && !S_ISSOCK(status.st_mode)))
        return EINVAL;
    return 0;
}

static int add_knote(struct queue *queue, const struct kevent *change, int set)
{
    int fd = (int)change->ident;
    int error = can_watch(fd, set);
    struct knote *knote;
    int operation;

    if (error == 0)
        error = reserve(queue, fd);
    if (error != 0)
        return error;
    knote = &queue->knotes[set][fd];
    operation = knote->is_used ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (!knote->is_used)
        knote->is_clear = (change->flags & EV_CLEAR) != 0;
    error = tell_set(queue, set, fd, operation);
    if (error == 0)
        *knote = (struct knote){true, knote->is_clear,
                                (change->flags & EV_ONESHOT) != 0, change->udata};
    return error;
}

static int change_knote(struct queue *queue, const struct kevent *change, int set)
{
    int fd = (int)change->ident;

    if ((change->flags & EV_ADD) != 0)
        return add_knote(queue, change, set);
    if (fcntl(fd, F_GETFD) < 0)
        return EBADF;
    if (fd >= queue->capacity || !queue->knotes[set][fd].is_used)
        return ENOENT;
    if ((change->flags & EV_DELETE) != 0)
        model_drop_knote(queue, set, fd);
    return 0;
}

/* ---- timers and user events ------------------------------------------------------ */

int model_watch(const struct queue *queue, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};

    return fd < 0 || epoll_ctl(queue->kq, EPOLL_CTL_ADD, fd, &event) < 0 ? errno : 0;
}

static int start_timer(struct queue *queue, struct timer *timer,
                       const struct kevent *change)
{
    int64_t ns = change->data;
    struct itimerspec when = {0};

    if (ns <= 0)
        return EINVAL;
    if (timer->fd >= 0)
        return 0;
    ns *= (change->fflags & NOTE_NSECONDS) != 0 ? 1 : 1000000;
    when.it_value = (struct timespec){ns / NS_PER_S, ns % NS_PER_S};
    if ((change->flags & EV_ONESHOT) == 0)
        when.it_interval = when.it_value;
    timer->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    timer->flags = change->flags;
    timer->udata = change->udata;
    (void)timerfd_settime(timer->fd, 0, &when, NULL);
    return model_watch(queue, timer->fd);
}

void model_drop_timer(struct queue *queue, uintptr_t ident)
{
    struct timer *timer = &queue->timers[ident];

    if (timer->fd >= 0)
        model_close(timer->fd);
    timer->fd = -1;
}

static int change_timer(struct queue *queue, const struct kevent *change)
{
    struct timer *timer = &queue->timers[change->ident % IDENT_MAX];

    if ((change->flags & EV_ADD) != 0)
        return start_timer(queue, timer, change);
    if (timer->fd < 0)
        return ENOENT;
    if ((change->flags & EV_DELETE) != 0)
        model_drop_timer(queue, change->ident % IDENT_MAX);
    return 0;
}

void model_drop_user(struct queue *queue, uintptr_t ident)
{
    int fd = atomic_exchange(&queue->user_fds[ident], 0);

    if (fd != 0)
        model_close(fd);
}

int model_trigger(const struct queue *queue, uintptr_t ident)
{
    int fd = atomic_load(&queue->user_fds[ident % IDENT_MAX]);
    uint64_t one = 1;

    return fd == 0 ? ENOENT : write(fd, &one, sizeof one) == sizeof one ? 0 : EIO;
}

static int change_user(struct queue *queue, const struct kevent *change)
{
    uintptr_t ident = change->ident % IDENT_MAX;
    int error = atomic_load(&queue->user_fds[ident]) == 0 ? ENOENT : 0;

    if ((change->flags & EV_ADD) != 0) {
        int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

        model_drop_user(queue, ident);
        error = model_watch(queue, fd);
        queue->users[ident] = *change;
        atomic_store(&queue->user_fds[ident], error == 0 ? fd : 0);
    } else if ((change->flags & EV_DELETE) != 0) {
        model_drop_user(queue, ident);
    } else if ((change->fflags & NOTE_TRIGGER) != 0) {
        error = model_trigger(queue, ident);
    }
    return error;
}

int model_change(struct queue *queue, const struct kevent *change)
{
    int set = set_of_filter(change->filter);

    if ((change->flags & EV_ADD) != 0 && change->filter == refused_filter &&
        refused_error != 0)
        return refused_error;
    if (set >= 0)
        return change_knote(queue, change, set);
    return change->filter == EVFILT_TIMER  ? change_timer(queue, change)
           : change->filter == EVFILT_USER ? change_user(queue, change)
                                           : EINVAL;
}
