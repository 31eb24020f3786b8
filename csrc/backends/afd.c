/* afd.c: the Windows backend: polls of AFD on an I/O completion port.
 *
 * A poll of AFD (sys_afd.h) is over as soon as one of its events is there, also if it
 * was there before. So level-triggered readiness needs a new poll before each wait, for
 * the sockets that the last one has reported; the others keep theirs. One poll watches
 * one socket, and one handle of AFD serves them all.
 *
 * The kernel writes into a poll until the port has returned it. So a watch that is
 * removed while its poll is under way is cancelled, and freed when it comes back.
 *
 * A lock of its own guards the watches, since `wait` changes them, too. */
#include "backend.h"

#if defined(_WIN32)

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "../core/node.h"
#include "../platform/sys_afd_host.h"

enum state {
    IDLE, /* in the list; needs a poll before the next wait */
    POLLED,
    CLOSED, /* so was its socket; the core will remove it */
    REMOVED, /* its poll was cancelled, and comes back */
};

struct watch {
    struct fdmux__afd_poll poll; /* first: the port returns its address */
    enum state state;
    uint64_t token;
    HANDLE socket;
    uint32_t mask;  /* what the node wants */
    uint32_t asked; /* what the poll under way asks AFD for */
    uint32_t index; /* in `watches` */
    struct watch *next; /* of those that are IDLE */
    struct watch *previous;
};

struct afd_data_of_loop {
    struct fdmux__afd afd;
    fdmux__lock lock;
    struct watch **watches;
    uint32_t count;
    uint32_t capacity;
    uint32_t flying; /* polls that the port has not returned */
    struct watch *first_idle;
    struct watch *last_idle;
    int64_t timer_deadline_ns; /* 0: not set, or it has expired */
    struct fdmux__afd_host *host; /* NULL until fdmux_loop_handle */
    struct fdmux__afd_result results[FDMUX__AFD_RESULTS_MAX];
};

static struct afd_data_of_loop *data_of(const struct fdmux_loop *loop)
{
    return loop->backend_data;
}

/* ---- masks ----------------------------------------------------------------------- */

static uint32_t afd_from_mask(uint32_t mask)
{
    uint32_t events =
        FDMUX__AFD_ABORT | FDMUX__AFD_CONNECT_FAIL | FDMUX__AFD_LOCAL_CLOSE;

    if ((mask & FDMUX_READ) != 0)
        events |= FDMUX__AFD_RECEIVE | FDMUX__AFD_ACCEPT | FDMUX__AFD_DISCONNECT;
    if ((mask & FDMUX_WRITE) != 0)
        events |= FDMUX__AFD_SEND;
    if ((mask & FDMUX_PRIORITY) != 0)
        events |= FDMUX__AFD_RECEIVE_URGENT;
    if ((mask & FDMUX_PEER_CLOSED) != 0)
        events |= FDMUX__AFD_DISCONNECT;
    return events;
}

static uint32_t mask_from_afd(uint32_t events, uint32_t wanted)
{
    uint32_t mask = 0;

    if ((events & (FDMUX__AFD_RECEIVE | FDMUX__AFD_ACCEPT | FDMUX__AFD_DISCONNECT)) !=
        0)
        mask |= FDMUX_READ;
    if ((events & FDMUX__AFD_SEND) != 0)
        mask |= FDMUX_WRITE;
    if ((events & FDMUX__AFD_RECEIVE_URGENT) != 0)
        mask |= FDMUX_PRIORITY;
    if ((events & (FDMUX__AFD_DISCONNECT | FDMUX__AFD_ABORT)) != 0)
        mask |= FDMUX_PEER_CLOSED;
    mask &= wanted;
    if ((events & (FDMUX__AFD_ABORT | FDMUX__AFD_CONNECT_FAIL)) != 0)
        mask |= FDMUX_HANGUP | FDMUX_ERROR | FDMUX_READ | FDMUX_WRITE;
    return mask;
}

/* ---- watches --------------------------------------------------------------------- */

/* At the end, so that the ports returns sockets in the order in which they had to wait.
 */
static void make_idle(struct afd_data_of_loop *data, struct watch *watch)
{
    watch->state = IDLE;
    watch->next = NULL;
    watch->previous = data->last_idle;
    if (watch->previous != NULL)
        watch->previous->next = watch;
    else
        data->first_idle = watch;
    data->last_idle = watch;
}

static void leave_idle(struct afd_data_of_loop *data, struct watch *watch)
{
    if (watch->previous != NULL)
        watch->previous->next = watch->next;
    else
        data->first_idle = watch->next;
    if (watch->next != NULL)
        watch->next->previous = watch->previous;
    else
        data->last_idle = watch->previous;
}

/* Returns 0 or -errno; then the watch is as before. */
static int begin_poll(struct afd_data_of_loop *data, struct watch *watch)
{
    uint32_t asked = afd_from_mask(watch->mask);
    int r = fdmux__sys_afd_begin(&data->afd, &watch->poll, watch->socket, asked);

    if (r < 0)
        return r;
    leave_idle(data, watch);
    watch->state = POLLED;
    watch->asked = asked;
    data->flying++;
    return 0;
}

static int reserve_watch(struct afd_data_of_loop *data)
{
    uint32_t capacity = data->capacity == 0 ? 16 : data->capacity * 2;
    struct watch **watches;

    if (data->count < data->capacity)
        return 0;
    watches = fdmux__sys_realloc(data->watches, capacity * sizeof(struct watch *));
    if (watches == NULL)
        return -ENOMEM;
    data->watches = watches;
    data->capacity = capacity;
    return 0;
}

static int add_watch(struct fdmux_loop *loop, struct fdmux__node *node, uint32_t mask)
{
    struct afd_data_of_loop *data = data_of(loop);
    HANDLE socket;
    struct watch *watch;
    int r = fdmux__sys_afd_socket(node->fd, &socket);

    if (r == 0)
        r = reserve_watch(data);
    if (r < 0)
        return r;
    watch = fdmux__sys_calloc(1, sizeof *watch);
    if (watch == NULL)
        return -ENOMEM;
    watch->token = fdmux__slots_token(&loop->nodes, node->index);
    watch->socket = socket;
    watch->mask = mask;
    watch->index = data->count;
    node->backend_index = watch->index;
    data->watches[data->count++] = watch;
    make_idle(data, watch);
    return 0;
}

/* Move the last watch into the place of the removed one. */
static void remove_watch(struct fdmux_loop *loop, struct watch *watch)
{
    struct afd_data_of_loop *data = data_of(loop);
    struct watch *last = data->watches[--data->count];
    struct fdmux__node *moved = fdmux__slots_find(&loop->nodes, last->token);

    data->watches[watch->index] = last;
    last->index = watch->index;
    if (moved != NULL)
        moved->backend_index = last->index;
    if (watch->state == POLLED) {
        watch->state = REMOVED;
        fdmux__sys_afd_cancel(&data->afd, &watch->poll);
        return;
    }
    if (watch->state == IDLE)
        leave_idle(data, watch);
    fdmux__sys_free(watch);
}

/* NULL if there is none: the core does not tell of a socket that it has found closed.
 */
static struct watch *watch_of(const struct fdmux_loop *loop,
                              const struct fdmux__node *node)
{
    const struct afd_data_of_loop *data = data_of(loop);

    if (node->backend_index >= data->count ||
        data->watches[node->backend_index]->token !=
            fdmux__slots_token(&loop->nodes, node->index))
        return NULL;
    return data->watches[node->backend_index];
}

static bool is_closed(const struct watch *watch)
{
    return watch->state == CLOSED ||
           (watch->state == POLLED && fdmux__sys_afd_is_closed(&watch->poll));
}

static int change_watch(struct fdmux_loop *loop, struct fdmux__node *node,
                        struct watch *watch, uint32_t mask)
{
    int r;

    if (is_closed(watch)) {
        remove_watch(loop, watch);
        return -ENOENT;
    }
    if (watch->state == POLLED && (afd_from_mask(mask) & ~watch->asked) == 0) {
        watch->mask = mask; /* what is not wanted any more is not reported */
        return 0;
    }
    if (watch->state == IDLE) {
        r = fdmux__sys_afd_socket(node->fd, &watch->socket);
        if (r == 0)
            watch->mask = mask;
        return r;
    }
    r = add_watch(loop, node, mask); /* a new one, since a poll cannot be changed */
    if (r == 0)
        remove_watch(loop, watch);
    return r;
}

/* Does another thread, or a host, wait now? The next wait begins the poll otherwise. */
static bool is_watched(const struct fdmux_loop *loop)
{
    return loop->is_waiting || (loop->is_hosted && !loop->is_dispatching);
}

static int update_watch(struct fdmux_loop *loop, struct fdmux__node *node,
                        uint32_t mask)
{
    struct watch *watch = watch_of(loop, node);
    int r;

    if (watch != NULL && node->mask == 0) {
        remove_watch(loop, watch);
        watch = NULL;
    }
    r = watch == NULL ? add_watch(loop, node, mask)
                      : change_watch(loop, node, watch, mask);
    if (r < 0 || !is_watched(loop) || watch_of(loop, node)->state != IDLE)
        return r;
    r = begin_poll(data_of(loop), watch_of(loop, node));
    if (r < 0 && watch == NULL)
        remove_watch(loop, watch_of(loop, node));
    return r;
}

static void end_watch(struct fdmux_loop *loop, const struct fdmux__node *node)
{
    struct watch *watch = watch_of(loop, node);

    if (watch != NULL)
        remove_watch(loop, watch);
}

static int afd_update(struct fdmux_loop *loop, struct fdmux__node *node, uint32_t mask)
{
    struct afd_data_of_loop *data = data_of(loop);
    int r = 0;

    if ((mask & FDMUX__KERNEL_OPTIONS) != 0)
        return -EOPNOTSUPP;
    fdmux__lock_take(&data->lock);
    if (mask == 0)
        end_watch(loop, node);
    else
        r = update_watch(loop, node, mask);
    fdmux__lock_release(&data->lock);
    return r;
}

/* ---- waiting --------------------------------------------------------------------- */

static int report(struct fdmux_loop *loop, int count, uint64_t token, uint32_t events)
{
    loop->events[count].token = token;
    loop->events[count].events = events;
    return count + 1;
}

/* Begin the polls that are missing. Returns how many sockets were found closed, each
 * with an event; or -errno, if there is none. */
static int begin_all(struct fdmux_loop *loop, int capacity)
{
    struct afd_data_of_loop *data = data_of(loop);
    int count = 0;
    int r = 0;

    while (data->first_idle != NULL && count < capacity) {
        struct watch *watch = data->first_idle;

        r = begin_poll(data, watch);
        if (r < 0 && r != -EBADF)
            break;
        if (r < 0) {
            leave_idle(data, watch);
            watch->state = CLOSED;
            count = report(loop, count, watch->token, FDMUX__GONE);
        }
    }
    return count > 0 || r == -EBADF ? count : r;
}

/* What the port has returned becomes an event, perhaps. Returns the count of events. */
static int take_result(struct fdmux_loop *loop, const struct fdmux__afd_result *result,
                       int count)
{
    struct afd_data_of_loop *data = data_of(loop);
    struct watch *watch = (struct watch *)result->poll;
    uint32_t events;

    if (result->kind == FDMUX__AFD_RING)
        return report(loop, count, FDMUX__WAKE_TOKEN, FDMUX_READ);
    if (result->kind == FDMUX__AFD_TIMER) {
        data->timer_deadline_ns = 0; /* perhaps an older one: it is set again */
        loop->is_armed_over = true;
        return count;
    }
    data->flying--;
    if (watch->state == REMOVED) {
        fdmux__sys_free(watch);
        return count;
    }
    if ((result->events & FDMUX__AFD_LOCAL_CLOSE) != 0) {
        watch->state = CLOSED;
        return report(loop, count, watch->token, FDMUX__GONE);
    }
    /* Without events: the thread that began the poll has ended. Begin it again. */
    make_idle(data, watch);
    events = mask_from_afd(result->events, watch->mask);
    return events == 0 ? count : report(loop, count, watch->token, events);
}

/* The timeouts of a port are those of the clock tick. So a timer ends the wait, which
 * costs a call only for a deadline that is not that of the last wait. */
static int set_timer(struct afd_data_of_loop *data, int64_t deadline_ns)
{
    int r = 0;

    if (deadline_ns != data->timer_deadline_ns)
        r = fdmux__sys_afd_set_timer(&data->afd, deadline_ns);
    if (r == 0)
        data->timer_deadline_ns = deadline_ns;
    return r;
}

/* Wait until the deadline at the latest. The timer may be that of the host. */
static int set_wait_timer(struct fdmux_loop *loop)
{
    loop->is_armed_over = true;
    return set_timer(data_of(loop), loop->wait_deadline_ns);
}

static int take(struct fdmux_loop *loop, int room, bool is_waiting)
{
    struct afd_data_of_loop *data = data_of(loop);

    if (room > FDMUX__AFD_RESULTS_MAX)
        room = FDMUX__AFD_RESULTS_MAX;
    if (data->host != NULL && data->host->is_running)
        return fdmux__sys_afd_host_take(data->host, data->results, room, is_waiting);
    return fdmux__sys_afd_take(&data->afd, data->results, room, is_waiting);
}

/* One round. Returns the count of events, or -errno; *ret_is_over: there is nothing
 * else to be had before the deadline. */
static int wait_once(struct fdmux_loop *loop, int64_t timeout_ns, int capacity,
                     bool *ret_is_over)
{
    struct afd_data_of_loop *data = data_of(loop);
    int count, r = 0;

    fdmux__lock_take(&data->lock);
    count = begin_all(loop, capacity);
    fdmux__lock_release(&data->lock);
    if (count < 0 || count == capacity)
        return count;
    if (timeout_ns > 0 && count == 0)
        r = set_wait_timer(loop);
    if (r == 0)
        r = take(loop, capacity - count, timeout_ns != 0 && count == 0);
    if (r < 0)
        return count > 0 ? count : r;
    fdmux__lock_take(&data->lock);
    for (int i = 0; i < r; i++)
        count = take_result(loop, &data->results[i], count);
    fdmux__lock_release(&data->lock);
    *ret_is_over = timeout_ns > 0 ? fdmux__sys_now() >= loop->wait_deadline_ns
                                  : timeout_ns == 0 && r == 0;
    return count;
}

static int afd_wait(struct fdmux_loop *loop, int64_t timeout_ns, int capacity)
{
    bool is_over = false;
    int count;

    do {
        count = wait_once(loop, timeout_ns, capacity, &is_over);
    } while (count == 0 && !is_over);
    return count == -EINTR ? 0 : count; /* only tests interrupt it */
}

static int afd_prepare(struct fdmux_loop *loop, int capacity)
{
    (void)loop, (void)capacity;
    return 0;
}

/* ---- hosts ----------------------------------------------------------------------- */

static int afd_host_handle(struct fdmux_loop *loop, void **ret_handle)
{
    struct afd_data_of_loop *data = data_of(loop);
    struct fdmux__afd_host *host = data->host;
    int r;

    if (host == NULL) {
        host = fdmux__sys_calloc(1, sizeof *host);
        if (host == NULL)
            return -ENOMEM;
        r = fdmux__sys_afd_host_open(host, &data->afd);
        if (r < 0) {
            fdmux__sys_free(host);
            return r;
        }
        data->host = host;
    }
    *ret_handle = host->event;
    return 0;
}

static int afd_arm(struct fdmux_loop *loop, int64_t deadline_ns)
{
    struct afd_data_of_loop *data = data_of(loop);

    if (deadline_ns > fdmux__sys_now())
        return set_timer(data, deadline_ns);
    fdmux__sys_afd_host_signal(data->host);
    return 0;
}

static int afd_rest(struct fdmux_loop *loop)
{
    struct afd_data_of_loop *data = data_of(loop);
    int r = data->host->is_running ? 0 : fdmux__sys_afd_host_start(data->host);

    fdmux__lock_take(&data->lock);
    while (data->first_idle != NULL && r == 0)
        r = begin_poll(data, data->first_idle);
    fdmux__lock_release(&data->lock);
    if (r == 0)
        return 0;
    fdmux__sys_afd_host_signal(data->host);
    return r == -EBADF ? 0 : r; /* the next dispatch finds the closed socket */
}

/* ---- life ------------------------------------------------------------------------ */

/* Wait for a poll that was cancelled. Its result may be among those kept for a host. */
static struct fdmux__afd_poll *await_poll(struct afd_data_of_loop *data)
{
    struct fdmux__afd_result kept;

    while (data->host != NULL &&
           fdmux__sys_afd_host_take(data->host, &kept, 1, false) == 1) {
        if (kept.kind == FDMUX__AFD_POLL)
            return kept.poll;
    }
    return fdmux__sys_afd_await(&data->afd);
}

static void cancel_all(struct afd_data_of_loop *data)
{
    for (uint32_t i = 0; i < data->count; i++) {
        struct watch *watch = data->watches[i];

        if (watch->state == POLLED) {
            watch->state = REMOVED;
            fdmux__sys_afd_cancel(&data->afd, &watch->poll);
        } else {
            fdmux__sys_free(watch);
        }
    }
    while (data->flying > 0) {
        fdmux__sys_free(await_poll(data));
        data->flying--;
    }
}

static void afd_close(struct fdmux_loop *loop)
{
    struct afd_data_of_loop *data = data_of(loop);

    if (data == NULL)
        return;
    if (data->host != NULL)
        fdmux__sys_afd_host_stop(data->host);
    cancel_all(data);
    if (data->host != NULL)
        fdmux__sys_afd_host_close(data->host);
    fdmux__sys_free(data->host);
    fdmux__sys_afd_close(&data->afd);
    fdmux__lock_close(&data->lock);
    fdmux__sys_free(data->watches);
    fdmux__sys_free(data);
    loop->backend_data = NULL;
}

static int afd_open(struct fdmux_loop *loop)
{
    struct afd_data_of_loop *data = fdmux__sys_calloc(1, sizeof *data);
    int r;

    if (data == NULL)
        return -ENOMEM;
    loop->backend_data = data;
    r = fdmux__lock_open(&data->lock);
    if (r == 0)
        r = fdmux__sys_afd_open(&data->afd);
    if (r < 0)
        afd_close(loop);
    return r;
}

static int afd_ring(struct fdmux_loop *loop)
{
    struct afd_data_of_loop *data = data_of(loop);

    return fdmux__sys_afd_ring(&data->afd);
}

static uint32_t afd_features(const struct fdmux_loop *loop)
{
    (void)loop;
    return FDMUX_FEATURE_NANOSECONDS | FDMUX_FEATURE_HANDLE;
}

const struct fdmux__backend fdmux__backend_afd = {
    .name = "afd",
    .open = afd_open,
    .close = afd_close,
    .update = afd_update,
    .prepare = afd_prepare,
    .wait = afd_wait,
    .host_handle = afd_host_handle,
    .arm = afd_arm,
    .rest = afd_rest,
    .ring = afd_ring,
    .features = afd_features,
};

#else
typedef int fdmux__no_afd; /* ISO C forbids an empty file */
#endif
