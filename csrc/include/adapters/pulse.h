/* pulse.h: PulseAudio's client library in an fdmux loop, as its main loop.
 *
 *     r = fdmux_pulse_create(loop, &pulse);
 *     context = pa_context_new(&pulse->api, "name");
 *
 * Ownership: the main loop is yours, and must outlive its contexts: call
 *   fdmux_pulse_destroy once, after pa_context_unref, also inside a callback. Its
 *   memory is freed with the last event of libpulse.
 * Threads: the loop's.
 * End of the loop: contexts get no more events; disconnect and unref them as usual.
 *   To disconnect while the loop works, add a function of your own with
 *   fdmux_loop_at_close after create: it runs before the adapter's.
 * Timeouts: libpulse's own. It gives them in wall-clock time, so a step of that clock
 *   moves those that are armed.
 * pa_mainloop_api.quit does nothing: the loop is not libpulse's.
 * Tested with libpulse 16.1.
 *
 * In a Python extension include Python.h and fdmux_python.h first. */
#ifndef FDMUX_ADAPTERS_PULSE_H
#define FDMUX_ADAPTERS_PULSE_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include <fdmux.h>
#include <pulse/mainloop-api.h>

struct fdmux_pulse {
    pa_mainloop_api api;     /* for pa_context_new */
    struct fdmux_loop *loop; /* NULL after its end */
    uint64_t close_hook;
    int event_count;
    int is_destroyed;
};

struct pa_io_event {
    struct fdmux_pulse *pulse;
    uint64_t io;
    int fd;
    pa_io_event_cb_t fn;
    pa_io_event_destroy_cb_t destroyed;
    void *userdata;
};

struct pa_time_event {
    struct fdmux_pulse *pulse;
    uint64_t timer;
    struct timeval at;
    pa_time_event_cb_t fn;
    pa_time_event_destroy_cb_t destroyed;
    void *userdata;
};

struct pa_defer_event {
    struct fdmux_pulse *pulse;
    uint64_t timer;
    pa_defer_event_cb_t fn;
    pa_defer_event_destroy_cb_t destroyed;
    void *userdata;
    int is_enabled;
};

static inline struct fdmux_pulse *fdmux_pulse_of(pa_mainloop_api *api)
{
    return (struct fdmux_pulse *)api->userdata;
}

static inline void fdmux_pulse_free_if_unused(struct fdmux_pulse *pulse)
{
    if (!pulse->is_destroyed || pulse->event_count > 0)
        return;
    if (pulse->loop != NULL)
        (void)fdmux_hook_remove(pulse->loop, pulse->close_hook);
    free(pulse);
}

static inline int fdmux_pulse_add_timer(struct fdmux_pulse *pulse, fdmux_timer_fn fn,
                                        void *userdata, uint64_t *ret_timer)
{
    struct fdmux_timer_options timer;

    if (pulse->loop == NULL)
        return -ESTALE;
    memset(&timer, 0, sizeof timer);
    timer.struct_size = sizeof timer;
    timer.fn = fn;
    timer.userdata = userdata;
    return fdmux_timer_add(pulse->loop, &timer, ret_timer);
}

/* An event of libpulse is freed. */
static inline void fdmux_pulse_forget(struct fdmux_pulse *pulse, void *event)
{
    free(event);
    pulse->event_count--;
    fdmux_pulse_free_if_unused(pulse);
}

/* ---- io ------------------------------------------------------------------------- */

static inline uint32_t fdmux_pulse_events(pa_io_event_flags_t flags)
{
    return (flags & PA_IO_EVENT_INPUT ? (uint32_t)FDMUX_READ : 0U) |
           (flags & PA_IO_EVENT_OUTPUT ? (uint32_t)FDMUX_WRITE : 0U);
}

static inline int fdmux_pulse_on_ready(struct fdmux_loop *loop, uint64_t io,
                                       uint32_t events, void *userdata)
{
    pa_io_event *event = (pa_io_event *)userdata;
    int flags = 0;

    (void)loop;
    (void)io;
    if (events & FDMUX_READ)
        flags |= PA_IO_EVENT_INPUT;
    if (events & FDMUX_WRITE)
        flags |= PA_IO_EVENT_OUTPUT;
    if (events & FDMUX_HANGUP)
        flags |= PA_IO_EVENT_HANGUP;
    if (events & FDMUX_ERROR)
        flags |= PA_IO_EVENT_ERROR;
    event->fn(&event->pulse->api, event, event->fd, (pa_io_event_flags_t)flags,
              event->userdata);
    return 0;
}

static inline pa_io_event *fdmux_pulse_io_new(pa_mainloop_api *api, int fd,
                                              pa_io_event_flags_t flags,
                                              pa_io_event_cb_t fn, void *userdata)
{
    struct fdmux_pulse *pulse = fdmux_pulse_of(api);
    pa_io_event *event = (pa_io_event *)calloc(1, sizeof *event);
    struct fdmux_io_options io;

    memset(&io, 0, sizeof io);
    io.struct_size = sizeof io;
    io.fd = fd;
    io.events = fdmux_pulse_events(flags);
    io.fn = fdmux_pulse_on_ready;
    io.userdata = event;
    if (event == NULL || pulse->loop == NULL ||
        fdmux_io_add(pulse->loop, &io, &event->io) < 0) {
        free(event);
        return NULL;
    }
    event->pulse = pulse;
    event->fd = fd;
    event->fn = fn;
    event->userdata = userdata;
    pulse->event_count++;
    return event;
}

static inline void fdmux_pulse_io_enable(pa_io_event *event, pa_io_event_flags_t flags)
{
    if (event->pulse->loop != NULL)
        (void)fdmux_io_update(event->pulse->loop, event->io, fdmux_pulse_events(flags));
}

static inline void fdmux_pulse_io_free(pa_io_event *event)
{
    struct fdmux_pulse *pulse = event->pulse;

    if (pulse->loop != NULL)
        (void)fdmux_io_remove(pulse->loop, event->io);
    if (event->destroyed != NULL)
        event->destroyed(&pulse->api, event, event->userdata);
    fdmux_pulse_forget(pulse, event);
}

static inline void fdmux_pulse_io_set_destroy(pa_io_event *event,
                                              pa_io_event_destroy_cb_t destroyed)
{
    event->destroyed = destroyed;
}

/* ---- time ----------------------------------------------------------------------- */

static inline int fdmux_pulse_on_time(struct fdmux_loop *loop, uint64_t timer,
                                      void *userdata)
{
    pa_time_event *event = (pa_time_event *)userdata;
    struct timeval at = event->at;

    (void)loop;
    (void)timer;
    event->fn(&event->pulse->api, event, &at, event->userdata);
    return 0;
}

/* NULL disarms. */
static inline void fdmux_pulse_time_restart(pa_time_event *event,
                                            const struct timeval *at)
{
    struct fdmux_loop *loop = event->pulse->loop;
    struct timeval now;
    int64_t delay_ns;

    if (loop == NULL)
        return;
    if (at == NULL) {
        (void)fdmux_timer_cancel(loop, event->timer);
        return;
    }
    event->at = *at;
    gettimeofday(&now, NULL);
    delay_ns = (at->tv_sec - now.tv_sec) * INT64_C(1000000000) +
               (at->tv_usec - now.tv_usec) * INT64_C(1000);
    (void)fdmux_timer_arm_in(loop, event->timer, delay_ns < 0 ? 0 : delay_ns, 0);
}

static inline pa_time_event *fdmux_pulse_time_new(pa_mainloop_api *api,
                                                  const struct timeval *at,
                                                  pa_time_event_cb_t fn, void *userdata)
{
    struct fdmux_pulse *pulse = fdmux_pulse_of(api);
    pa_time_event *event = (pa_time_event *)calloc(1, sizeof *event);

    if (event == NULL ||
        fdmux_pulse_add_timer(pulse, fdmux_pulse_on_time, event, &event->timer) < 0) {
        free(event);
        return NULL;
    }
    event->pulse = pulse;
    event->fn = fn;
    event->userdata = userdata;
    pulse->event_count++;
    fdmux_pulse_time_restart(event, at);
    return event;
}

static inline void fdmux_pulse_time_free(pa_time_event *event)
{
    struct fdmux_pulse *pulse = event->pulse;

    if (pulse->loop != NULL)
        (void)fdmux_timer_remove(pulse->loop, event->timer);
    if (event->destroyed != NULL)
        event->destroyed(&pulse->api, event, event->userdata);
    fdmux_pulse_forget(pulse, event);
}

static inline void fdmux_pulse_time_set_destroy(pa_time_event *event,
                                                pa_time_event_destroy_cb_t destroyed)
{
    event->destroyed = destroyed;
}

/* ---- defer: called again before each wait, while it is enabled ------------------ */

static inline void fdmux_pulse_defer_enable(pa_defer_event *event, int is_enabled)
{
    struct fdmux_loop *loop = event->pulse->loop;

    event->is_enabled = is_enabled;
    if (loop != NULL && is_enabled)
        (void)fdmux_timer_arm(loop, event->timer, FDMUX_SOON, 0);
    else if (loop != NULL)
        (void)fdmux_timer_cancel(loop, event->timer);
}

static inline int fdmux_pulse_on_defer(struct fdmux_loop *loop, uint64_t timer,
                                       void *userdata)
{
    pa_defer_event *event = (pa_defer_event *)userdata;

    (void)loop;
    (void)timer;
    fdmux_pulse_defer_enable(event, 1); /* the function may disable or free it */
    event->fn(&event->pulse->api, event, event->userdata);
    return 0;
}

static inline pa_defer_event *
fdmux_pulse_defer_new(pa_mainloop_api *api, pa_defer_event_cb_t fn, void *userdata)
{
    struct fdmux_pulse *pulse = fdmux_pulse_of(api);
    pa_defer_event *event = (pa_defer_event *)calloc(1, sizeof *event);

    if (event == NULL ||
        fdmux_pulse_add_timer(pulse, fdmux_pulse_on_defer, event, &event->timer) < 0) {
        free(event);
        return NULL;
    }
    event->pulse = pulse;
    event->fn = fn;
    event->userdata = userdata;
    pulse->event_count++;
    fdmux_pulse_defer_enable(event, 1);
    return event;
}

static inline void fdmux_pulse_defer_free(pa_defer_event *event)
{
    struct fdmux_pulse *pulse = event->pulse;

    if (pulse->loop != NULL)
        (void)fdmux_timer_remove(pulse->loop, event->timer);
    if (event->destroyed != NULL)
        event->destroyed(&pulse->api, event, event->userdata);
    fdmux_pulse_forget(pulse, event);
}

static inline void fdmux_pulse_defer_set_destroy(pa_defer_event *event,
                                                 pa_defer_event_destroy_cb_t destroyed)
{
    event->destroyed = destroyed;
}

/* ---- from create to destroy ----------------------------------------------------- */

static inline void fdmux_pulse_quit(pa_mainloop_api *api, int result)
{
    (void)api;
    (void)result;
}

/* Let go of the loop. Its watchers end with it. */
static inline void fdmux_pulse_on_close(struct fdmux_loop *loop, void *userdata)
{
    (void)loop;
    ((struct fdmux_pulse *)userdata)->loop = NULL;
}

/* Give up the main loop. Accepts NULL. */
static inline void fdmux_pulse_destroy(struct fdmux_pulse *pulse)
{
    if (pulse == NULL)
        return;
    pulse->is_destroyed = 1;
    fdmux_pulse_free_if_unused(pulse);
}

/* Make a main loop for libpulse out of `loop`. Returns 0 or -ENOMEM. */
static inline int fdmux_pulse_create(struct fdmux_loop *loop,
                                     struct fdmux_pulse **ret_pulse)
{
    struct fdmux_pulse *pulse = (struct fdmux_pulse *)calloc(1, sizeof *pulse);
    int r;

    if (pulse == NULL)
        return -ENOMEM;
    pulse->loop = loop;
    pulse->api.userdata = pulse;
    pulse->api.io_new = fdmux_pulse_io_new;
    pulse->api.io_enable = fdmux_pulse_io_enable;
    pulse->api.io_free = fdmux_pulse_io_free;
    pulse->api.io_set_destroy = fdmux_pulse_io_set_destroy;
    pulse->api.time_new = fdmux_pulse_time_new;
    pulse->api.time_restart = fdmux_pulse_time_restart;
    pulse->api.time_free = fdmux_pulse_time_free;
    pulse->api.time_set_destroy = fdmux_pulse_time_set_destroy;
    pulse->api.defer_new = fdmux_pulse_defer_new;
    pulse->api.defer_enable = fdmux_pulse_defer_enable;
    pulse->api.defer_free = fdmux_pulse_defer_free;
    pulse->api.defer_set_destroy = fdmux_pulse_defer_set_destroy;
    pulse->api.quit = fdmux_pulse_quit;
    r = fdmux_loop_at_close(loop, fdmux_pulse_on_close, pulse, &pulse->close_hook);
    if (r < 0) {
        free(pulse);
        return r;
    }
    *ret_pulse = pulse;
    return 0;
}

#endif /* FDMUX_ADAPTERS_PULSE_H */
