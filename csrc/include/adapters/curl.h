/* curl.h: transfers of libcurl's multi interface in an fdmux loop.
 *
 *     r = fdmux_curl_attach(loop, multi, on_done, userdata, &curl);
 *     curl_multi_add_handle(multi, easy);
 *
 * Ownership: the multi handle and the easy handles are yours. The adapter owns the
 *   multi's socket and timer functions from attach to detach. Call fdmux_curl_detach
 *   once, before curl_multi_cleanup; both may be called inside on_done, but not inside
 *   a callback of libcurl.
 * Threads: the loop's.
 * End of the loop: transfers stop where they are, without on_done; remove and clean up
 *   the handles as usual, and detach. To end them while the loop works, add a function
 *   of your own with fdmux_loop_at_close after attach: it runs before the adapter's.
 * Timeouts: libcurl's own.
 * Tested with libcurl 7.88.1.
 *
 * In a Python extension include Python.h and fdmux_python.h first. */
#ifndef FDMUX_ADAPTERS_CURL_H
#define FDMUX_ADAPTERS_CURL_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>
#include <fdmux.h>

/* A transfer is over. `easy` has been removed from the multi: reuse it or clean it up.
 */
typedef void (*fdmux_curl_done_fn)(CURL *easy, CURLcode result, void *userdata);

struct fdmux_curl {
    struct fdmux_loop *loop; /* NULL after its end */
    CURLM *multi;            /* NULL after detach */
    fdmux_curl_done_fn done;
    void *userdata;
    uint64_t timer, close_hook;
    struct fdmux_curl_socket *sockets;
    int depth; /* how many functions below use this struct */
};

/* One socket of libcurl. Its memory is freed by the loop, as `destroyed`. */
struct fdmux_curl_socket {
    struct fdmux_curl *curl;
    uint64_t io;
    struct fdmux_curl_socket *next, **link; /* what points to it */
};

/* Report the transfers that are over, and free the struct if it was detached. */
static inline void fdmux_curl_leave(struct fdmux_curl *curl)
{
    CURLMsg *message;
    int left;

    while (curl->multi != NULL &&
           (message = curl_multi_info_read(curl->multi, &left)) != NULL) {
        CURL *easy = message->easy_handle;
        CURLcode result = message->data.result; /* invalid once it is removed */

        if (message->msg != CURLMSG_DONE)
            continue;
        curl_multi_remove_handle(curl->multi, easy);
        curl->done(easy, result, curl->userdata);
    }
    if (--curl->depth == 0 && curl->multi == NULL)
        free(curl);
}

static inline int fdmux_curl_on_ready(struct fdmux_loop *loop, uint64_t io,
                                      uint32_t events, void *userdata)
{
    struct fdmux_curl *curl = ((struct fdmux_curl_socket *)userdata)->curl;
    int mask = 0, running;

    if (events & FDMUX_READ)
        mask |= CURL_CSELECT_IN;
    if (events & FDMUX_WRITE)
        mask |= CURL_CSELECT_OUT;
    if (events & FDMUX_ERROR)
        mask |= CURL_CSELECT_ERR;
    curl->depth++;
    curl_multi_socket_action(curl->multi, fdmux_io_fd(loop, io), mask, &running);
    fdmux_curl_leave(curl);
    return 0;
}

static inline int fdmux_curl_on_timer(struct fdmux_loop *loop, uint64_t timer,
                                      void *userdata)
{
    struct fdmux_curl *curl = (struct fdmux_curl *)userdata;
    int running;

    (void)loop;
    (void)timer;
    curl->depth++;
    curl_multi_socket_action(curl->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    fdmux_curl_leave(curl);
    return 0;
}

static inline void fdmux_curl_remove_socket(struct fdmux_curl_socket *known)
{
    *known->link = known->next;
    if (known->next != NULL)
        known->next->link = known->link;
    (void)fdmux_io_remove(known->curl->loop, known->io); /* frees it */
}

static inline int fdmux_curl_add_socket(struct fdmux_curl *curl, curl_socket_t fd,
                                        uint32_t events)
{
    struct fdmux_curl_socket *known =
        (struct fdmux_curl_socket *)calloc(1, sizeof *known);
    struct fdmux_io_options io;

    if (known == NULL)
        return -1;
    memset(&io, 0, sizeof io);
    io.struct_size = sizeof io;
    io.fd = fd;
    io.events = events;
    io.fn = fdmux_curl_on_ready;
    io.userdata = known;
    io.destroyed = free;
    if (fdmux_io_add(curl->loop, &io, &known->io) < 0) {
        free(known);
        return -1;
    }
    known->curl = curl;
    known->next = curl->sockets;
    known->link = &curl->sockets;
    if (known->next != NULL)
        known->next->link = &known->next;
    curl->sockets = known;
    curl_multi_assign(curl->multi, fd, known);
    return 0;
}

/* CURLMOPT_SOCKETFUNCTION; -1 makes libcurl give up the transfers of this socket. */
static inline int fdmux_curl_on_socket(CURL *easy, curl_socket_t fd, int what,
                                       void *userdata, void *assigned)
{
    struct fdmux_curl *curl = (struct fdmux_curl *)userdata;
    struct fdmux_curl_socket *known = (struct fdmux_curl_socket *)assigned;
    uint32_t events = 0;

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (known != NULL)
            fdmux_curl_remove_socket(known);
        return 0;
    }
    if (what != CURL_POLL_OUT)
        events |= FDMUX_READ;
    if (what != CURL_POLL_IN)
        events |= FDMUX_WRITE;
    if (known == NULL)
        return fdmux_curl_add_socket(curl, fd, events);
    return fdmux_io_update(curl->loop, known->io, events) < 0 ? -1 : 0;
}

/* CURLMOPT_TIMERFUNCTION. A delay of 0 does not call libcurl within its own call. */
static inline int fdmux_curl_on_delay(CURLM *multi, long delay_ms, void *userdata)
{
    struct fdmux_curl *curl = (struct fdmux_curl *)userdata;

    (void)multi;
    if (delay_ms < 0)
        (void)fdmux_timer_cancel(curl->loop, curl->timer);
    else
        (void)fdmux_timer_arm_in(curl->loop, curl->timer, delay_ms * INT64_C(1000000),
                                 0);
    return 0;
}

static inline void fdmux_curl_set_functions(struct fdmux_curl *curl, int is_attached)
{
    curl_multi_setopt(curl->multi, CURLMOPT_SOCKETDATA, curl);
    curl_multi_setopt(curl->multi, CURLMOPT_TIMERDATA, curl);
    curl_multi_setopt(curl->multi, CURLMOPT_SOCKETFUNCTION,
                      is_attached ? fdmux_curl_on_socket : NULL);
    curl_multi_setopt(curl->multi, CURLMOPT_TIMERFUNCTION,
                      is_attached ? fdmux_curl_on_delay : NULL);
}

/* Let go of the loop. */
static inline void fdmux_curl_on_close(struct fdmux_loop *loop, void *userdata)
{
    struct fdmux_curl *curl = (struct fdmux_curl *)userdata;

    fdmux_curl_set_functions(curl, 0);
    while (curl->sockets != NULL) {
        curl_multi_assign(curl->multi, fdmux_io_fd(loop, curl->sockets->io), NULL);
        fdmux_curl_remove_socket(curl->sockets);
    }
    (void)fdmux_timer_remove(loop, curl->timer);
    (void)fdmux_hook_remove(loop, curl->close_hook);
    curl->loop = NULL;
}

/* Let go of the loop and of the multi handle, and free the adapter. Accepts NULL. */
static inline void fdmux_curl_detach(struct fdmux_curl *curl)
{
    if (curl == NULL)
        return;
    if (curl->loop != NULL)
        fdmux_curl_on_close(curl->loop, curl);
    curl->multi = NULL;
    if (curl->depth == 0)
        free(curl);
}

/* Let `loop` serve the transfers of `multi`; `done` is called when one is over.
 *
 * Attach before you add the first easy handle. Returns 0, or as fdmux_timer_add. */
static inline int fdmux_curl_attach(struct fdmux_loop *loop, CURLM *multi,
                                    fdmux_curl_done_fn done, void *userdata,
                                    struct fdmux_curl **ret_curl)
{
    struct fdmux_curl *curl = (struct fdmux_curl *)calloc(1, sizeof *curl);
    struct fdmux_timer_options timer;
    int r;

    if (curl == NULL)
        return -ENOMEM;
    curl->loop = loop;
    curl->multi = multi;
    curl->done = done;
    curl->userdata = userdata;
    memset(&timer, 0, sizeof timer);
    timer.struct_size = sizeof timer;
    timer.fn = fdmux_curl_on_timer;
    timer.userdata = curl;
    r = fdmux_timer_add(loop, &timer, &curl->timer);
    if (r == 0)
        r = fdmux_loop_at_close(loop, fdmux_curl_on_close, curl, &curl->close_hook);
    if (r < 0) {
        fdmux_curl_detach(curl);
        return r;
    }
    fdmux_curl_set_functions(curl, 1);
    *ret_curl = curl;
    return 0;
}

#endif /* FDMUX_ADAPTERS_CURL_H */
