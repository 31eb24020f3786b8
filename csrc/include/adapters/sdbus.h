/* sdbus.h: a connection of sd-bus (libsystemd) in an fdmux loop.
 *
 *     sd_bus_open_user(&bus);
 *     r = fdmux_sdbus_attach(loop, bus, on_lost, userdata, &sdbus);
 *     sd_bus_call_method_async(bus, NULL, ...);
 *
 * Ownership: the bus is yours; the adapter has a reference. Call fdmux_sdbus_detach
 *   once, also inside a callback; then close and unref as usual.
 * Threads: the loop's, as sd-bus demands.
 * End of the loop: the bus stays as it is, and pending calls stay pending; detach,
 *   close and unref as usual. To close it while the loop works, add a function of
 *   your own with fdmux_loop_at_close after attach: it runs before the adapter's.
 * Hosts: after you have used the bus outside of the loop's functions, and a host
 *   runs the loop (fdmux_loop_fd), call fdmux_loop_wake: a call may wait to be sent.
 * Timeouts: sd-bus' own (sd_bus_call_async).
 * Tested with libsystemd 252.
 *
 * In a Python extension include Python.h and fdmux_python.h first. */
#ifndef FDMUX_ADAPTERS_SDBUS_H
#define FDMUX_ADAPTERS_SDBUS_H

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include <fdmux.h>
#include <systemd/sd-bus.h>

#define FDMUX_SDBUS_BATCH 64 /* messages, before other watchers have their turn */

/* The connection is lost: `error` is -ECONNRESET, -ENOTCONN or the like. Calls in
 * flight have been answered with errors. NULL is allowed. */
typedef void (*fdmux_sdbus_lost_fn)(sd_bus *bus, int error, void *userdata);

struct fdmux_sdbus {
    struct fdmux_loop *loop; /* NULL after its end */
    sd_bus *bus;
    fdmux_sdbus_lost_fn lost;
    void *userdata;
    uint64_t io, timer, hook, close_hook;
    int fd; /* that is watched, or -1 */
    uint32_t events;
};

static inline uint32_t fdmux_sdbus_wanted(sd_bus *bus)
{
    int mask = sd_bus_get_events(bus);
    uint32_t events = 0;

    if (mask > 0 && (mask & POLLIN))
        events |= FDMUX_READ;
    if (mask > 0 && (mask & POLLOUT))
        events |= FDMUX_WRITE;
    return events;
}

static inline void fdmux_sdbus_watch(struct fdmux_sdbus *sdbus, int fd, uint32_t events)
{
    int r = 0;

    if (fd != sdbus->fd)
        r = fdmux_io_replace_fd(sdbus->loop, sdbus->io, fd, events);
    else if (fd >= 0 && events != sdbus->events)
        r = fdmux_io_update(sdbus->loop, sdbus->io, events);
    if (r < 0)
        return; /* tried again before the next wait */
    sdbus->fd = fd;
    sdbus->events = events;
}

/* Before each wait: what sd-bus waits for (sd_bus_get_fd(3)). */
static inline int fdmux_sdbus_on_hook(struct fdmux_loop *loop, uint64_t hook,
                                      void *userdata)
{
    struct fdmux_sdbus *sdbus = (struct fdmux_sdbus *)userdata;
    int fd = sd_bus_get_fd(sdbus->bus);
    uint64_t deadline_us;

    (void)hook;
    fdmux_sdbus_watch(sdbus, fd < 0 ? -1 : fd, fdmux_sdbus_wanted(sdbus->bus));
    if (fd < 0 || sd_bus_get_timeout(sdbus->bus, &deadline_us) < 0 ||
        deadline_us > INT64_MAX / 1000)
        (void)fdmux_timer_cancel(loop, sdbus->timer);
    else /* CLOCK_MONOTONIC; 0 is now */
        (void)fdmux_timer_arm(loop, sdbus->timer, (int64_t)deadline_us * 1000, 0);
    return 0;
}

/* A callback may detach; the token of the timer tells. */
static inline void fdmux_sdbus_process(struct fdmux_loop *loop,
                                       struct fdmux_sdbus *sdbus)
{
    sd_bus *bus = sd_bus_ref(sdbus->bus);
    uint64_t timer = sdbus->timer;
    int left = FDMUX_SDBUS_BATCH, r;

    do { /* a lost connection answers one call in each, and loses its fd at last */
        r = sd_bus_process(bus, NULL);
    } while (fdmux_timer_cancel(loop, timer) >= 0 &&
             (sd_bus_is_open(bus) ? r > 0 && --left > 0 : sd_bus_get_fd(bus) >= 0));
    if (fdmux_timer_cancel(loop, timer) >= 0 && !sd_bus_is_open(bus)) {
        fdmux_sdbus_watch(sdbus, -1, 0);
        if (sdbus->lost != NULL)
            sdbus->lost(bus, r < 0 ? r : -ENOTCONN, sdbus->userdata);
    }
    sd_bus_unref(bus);
}

static inline int fdmux_sdbus_on_ready(struct fdmux_loop *loop, uint64_t io,
                                       uint32_t events, void *userdata)
{
    (void)io;
    (void)events;
    fdmux_sdbus_process(loop, (struct fdmux_sdbus *)userdata);
    return 0;
}

static inline int fdmux_sdbus_on_timer(struct fdmux_loop *loop, uint64_t timer,
                                       void *userdata)
{
    (void)timer;
    fdmux_sdbus_process(loop, (struct fdmux_sdbus *)userdata);
    return 0;
}

/* Let go of the loop. */
static inline void fdmux_sdbus_on_close(struct fdmux_loop *loop, void *userdata)
{
    struct fdmux_sdbus *sdbus = (struct fdmux_sdbus *)userdata;

    (void)fdmux_io_remove(loop, sdbus->io);
    (void)fdmux_timer_remove(loop, sdbus->timer);
    (void)fdmux_hook_remove(loop, sdbus->hook);
    (void)fdmux_hook_remove(loop, sdbus->close_hook);
    sdbus->loop = NULL;
}

/* Let go of the loop and of the bus, and free the adapter. Accepts NULL. */
static inline void fdmux_sdbus_detach(struct fdmux_sdbus *sdbus)
{
    if (sdbus == NULL)
        return;
    if (sdbus->loop != NULL)
        fdmux_sdbus_on_close(sdbus->loop, sdbus);
    sd_bus_unref(sdbus->bus);
    free(sdbus);
}

static inline int fdmux_sdbus_register(struct fdmux_sdbus *sdbus)
{
    struct fdmux_io_options io;
    struct fdmux_timer_options timer;
    struct fdmux_hook_options hook;
    int r;

    memset(&io, 0, sizeof io);
    io.struct_size = sizeof io;
    io.fd = -1;
    io.fn = fdmux_sdbus_on_ready;
    memset(&timer, 0, sizeof timer);
    timer.struct_size = sizeof timer;
    timer.fn = fdmux_sdbus_on_timer;
    memset(&hook, 0, sizeof hook);
    hook.struct_size = sizeof hook;
    hook.fn = fdmux_sdbus_on_hook;
    io.userdata = timer.userdata = hook.userdata = sdbus;
    r = fdmux_io_add(sdbus->loop, &io, &sdbus->io);
    if (r == 0)
        r = fdmux_timer_add(sdbus->loop, &timer, &sdbus->timer);
    if (r == 0)
        r = fdmux_hook_add(sdbus->loop, &hook, &sdbus->hook);
    if (r == 0)
        r = fdmux_loop_at_close(sdbus->loop, fdmux_sdbus_on_close, sdbus,
                                &sdbus->close_hook);
    return r;
}

/* Let `loop` serve `bus`, which was opened or started. Returns 0, or as fdmux_io_add.
 */
static inline int fdmux_sdbus_attach(struct fdmux_loop *loop, sd_bus *bus,
                                     fdmux_sdbus_lost_fn lost, void *userdata,
                                     struct fdmux_sdbus **ret_sdbus)
{
    struct fdmux_sdbus *sdbus = (struct fdmux_sdbus *)calloc(1, sizeof *sdbus);
    int r;

    if (sdbus == NULL)
        return -ENOMEM;
    sdbus->loop = loop;
    sdbus->bus = sd_bus_ref(bus);
    sdbus->lost = lost;
    sdbus->userdata = userdata;
    sdbus->fd = -1;
    r = fdmux_sdbus_register(sdbus);
    if (r < 0) {
        fdmux_sdbus_detach(sdbus);
        return r;
    }
    *ret_sdbus = sdbus;
    return 0;
}

#endif /* FDMUX_ADAPTERS_SDBUS_H */
