/* model_scan.c: what is ready (kqueue_model.c has the rules). */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "model_state.h"

static const short filters[SET_COUNT] = {EVFILT_READ, EVFILT_WRITE, EVFILT_EXCEPT};

static unsigned socket_error(int fd)
{
    int type;
    socklen_t size = sizeof type;

    /* SO_ERROR would take the error away; which one it is makes no difference. */
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 ? ECONNRESET : 0;
}

/* An error without EV_EOF (an ICMP error, say) has fflags too here: Linux keeps such a
 * socket ready until its error queue is read. */
static struct kevent describe(const struct queue *queue, int set,
                              const struct epoll_event *event)
{
    int fd = event->data.fd;
    bool has_error = (event->events & EPOLLERR) != 0;
    struct kevent found = {
        .ident = (uintptr_t)fd,
        .filter = filters[set],
        .udata = queue->knotes[set][fd].udata,
    };

    if ((event->events & (EPOLLHUP | EPOLLRDHUP)) != 0 ||
        (has_error && socket_error(fd) == 0) || (set == SET_WRITE && model_is_shut(fd)))
        found.flags = EV_EOF;
    if (has_error)
        found.fflags = socket_error(fd);
    if (set == SET_EXCEPT && (event->events & EPOLLPRI) != 0)
        found.fflags |= NOTE_OOB;
    return found;
}

static int scan_set(struct queue *queue, int set, struct kevent *events, int capacity)
{
    struct epoll_event *ready = malloc((size_t)capacity * sizeof *ready);
    int count = ready == NULL ? 0 : epoll_wait(queue->sets[set], ready, capacity, 0);

    for (int i = 0; i < count; i++) {
        events[i] = describe(queue, set, &ready[i]);
        if (queue->knotes[set][ready[i].data.fd].is_once)
            model_drop_knote(queue, set, ready[i].data.fd);
    }
    free(ready);
    return count < 0 ? 0 : count;
}

static int scan_user(struct queue *queue, uintptr_t ident, struct kevent *event)
{
    int fd = atomic_load(&queue->user_fds[ident]);
    uint64_t count;

    if (fd == 0 || read(fd, &count, sizeof count) < 0)
        return 0;
    *event = queue->users[ident];
    event->flags = 0;
    if ((queue->users[ident].flags & EV_ONESHOT) != 0)
        model_drop_user(queue, ident);
    return 1;
}

static int scan_timer(struct queue *queue, uintptr_t ident, struct kevent *event)
{
    struct timer *timer = &queue->timers[ident];
    uint64_t count;

    if (timer->fd < 0 || read(timer->fd, &count, sizeof count) < 0)
        return 0;
    *event = (struct kevent){.ident = ident,
                             .filter = EVFILT_TIMER,
                             .data = (int64_t)count,
                             .udata = timer->udata};
    if ((timer->flags & EV_ONESHOT) != 0)
        model_drop_timer(queue, ident);
    return 1;
}

int model_scan(struct queue *queue, struct kevent *events, int capacity)
{
    int count = 0;

    for (uintptr_t i = 0; i < IDENT_MAX && count < capacity; i++)
        count += scan_user(queue, i, events + count);
    for (uintptr_t i = 0; i < IDENT_MAX && count < capacity; i++)
        count += scan_timer(queue, i, events + count);
    for (int i = 0; i < SET_COUNT && count < capacity; i++) {
        int set = (queue->first_set + i) % SET_COUNT;

        count += scan_set(queue, set, events + count, capacity - count);
        if (count == capacity)
            queue->first_set = (set + 1) % SET_COUNT;
    }
    return count;
}
