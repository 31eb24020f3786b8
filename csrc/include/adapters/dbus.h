/* dbus.h: a connection of libdbus in an fdmux loop.
 *
 *     connection = dbus_connection_open_private(address, &error);
 *     r = fdmux_dbus_attach(loop, connection, &dbus);
 *
 * The adapter reads, writes, times out and dispatches. libdbus connects, and registers
 * with a bus (dbus_bus_register), while it blocks; do that before, or send Hello
 * yourself.
 *
 * Ownership: the connection is yours; the adapter has a reference. Call
 *   fdmux_dbus_detach once, also inside a callback; then close and unref as usual.
 * Threads: the loop's. Others may send if the program has called dbus_threads_init.
 * End of the loop: the connection stays as it is, and pending calls stay pending;
 *   detach, close and unref as usual. To close it while the loop works, add a function
 *   of your own with fdmux_loop_at_close after attach: it runs before the adapter's.
 * Timeouts: libdbus' own (dbus_connection_send_with_reply).
 * Tested with libdbus 1.14.10.
 *
 * In a Python extension include Python.h and fdmux_python.h first. */
#ifndef FDMUX_ADAPTERS_DBUS_H
#define FDMUX_ADAPTERS_DBUS_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <dbus/dbus.h>
#include <fdmux.h>

#define FDMUX_DBUS_BATCH 64 /* messages, before other watchers have their turn */

struct fdmux_dbus {
    struct fdmux_loop *loop; /* NULL after its end */
    DBusConnection *connection;
    uint64_t timer, close_hook;
};

/* What belongs to one DBusWatch or DBusTimeout; libdbus frees it. */
struct fdmux_dbus_node {
    struct fdmux_dbus *dbus;
    uint64_t token;
};

/* ---- watches: one for reading and one for writing, of one descriptor ------------- */

static inline uint32_t fdmux_dbus_events(DBusWatch *watch)
{
    unsigned flags = dbus_watch_get_flags(watch);
    uint32_t events = 0;

    if (!dbus_watch_get_enabled(watch))
        return 0;
    if (flags & DBUS_WATCH_READABLE)
        events |= FDMUX_READ;
    if (flags & DBUS_WATCH_WRITABLE)
        events |= FDMUX_WRITE;
    return events;
}

/* libdbus may remove both watches, and free the adapter, in its function. */
static inline int fdmux_dbus_on_ready(struct fdmux_loop *loop, uint64_t io,
                                      uint32_t events, void *userdata)
{
    unsigned flags = 0;

    (void)loop;
    (void)io;
    if (events & FDMUX_READ)
        flags |= DBUS_WATCH_READABLE;
    if (events & FDMUX_WRITE)
        flags |= DBUS_WATCH_WRITABLE;
    if (events & FDMUX_HANGUP)
        flags |= DBUS_WATCH_HANGUP;
    if (events & FDMUX_ERROR)
        flags |= DBUS_WATCH_ERROR;
    dbus_watch_handle((DBusWatch *)userdata, flags);
    return 0;
}

static inline dbus_bool_t fdmux_dbus_add_watch(DBusWatch *watch, void *data)
{
    struct fdmux_dbus *dbus = (struct fdmux_dbus *)data;
    struct fdmux_dbus_node *node = (struct fdmux_dbus_node *)calloc(1, sizeof *node);
    struct fdmux_io_options io;

    memset(&io, 0, sizeof io);
    io.struct_size = sizeof io;
    io.fd = dbus_watch_get_unix_fd(watch);
    io.events = fdmux_dbus_events(watch);
    io.fn = fdmux_dbus_on_ready;
    io.userdata = watch;
    if (node == NULL || fdmux_io_add(dbus->loop, &io, &node->token) < 0) {
        free(node);
        return FALSE; /* libdbus takes it for a lack of memory */
    }
    node->dbus = dbus;
    dbus_watch_set_data(watch, node, free);
    return TRUE;
}

static inline void fdmux_dbus_remove_watch(DBusWatch *watch, void *data)
{
    struct fdmux_dbus_node *node = (struct fdmux_dbus_node *)dbus_watch_get_data(watch);

    (void)data;
    if (node != NULL)
        (void)fdmux_io_remove(node->dbus->loop, node->token);
    dbus_watch_set_data(watch, NULL, NULL);
}

static inline void fdmux_dbus_toggle_watch(DBusWatch *watch, void *data)
{
    struct fdmux_dbus_node *node = (struct fdmux_dbus_node *)dbus_watch_get_data(watch);

    (void)data;
    if (node != NULL)
        (void)fdmux_io_update(node->dbus->loop, node->token, fdmux_dbus_events(watch));
}

/* ---- timeouts, which repeat until libdbus removes them --------------------------- */

static inline int fdmux_dbus_on_timeout(struct fdmux_loop *loop, uint64_t timer,
                                        void *userdata)
{
    (void)loop;
    (void)timer;
    dbus_timeout_handle((DBusTimeout *)userdata);
    return 0;
}

static inline void fdmux_dbus_toggle_timeout(DBusTimeout *timeout, void *data)
{
    struct fdmux_dbus_node *node =
        (struct fdmux_dbus_node *)dbus_timeout_get_data(timeout);
    int64_t interval_ns = dbus_timeout_get_interval(timeout) * INT64_C(1000000);

    (void)data;
    if (node == NULL)
        return;
    if (interval_ns == 0)
        interval_ns = 1; /* a period of 0 would be none */
    if (dbus_timeout_get_enabled(timeout))
        (void)fdmux_timer_arm_in(node->dbus->loop, node->token, interval_ns,
                                 interval_ns);
    else
        (void)fdmux_timer_cancel(node->dbus->loop, node->token);
}

static inline dbus_bool_t fdmux_dbus_add_timeout(DBusTimeout *timeout, void *data)
{
    struct fdmux_dbus *dbus = (struct fdmux_dbus *)data;
    struct fdmux_dbus_node *node = (struct fdmux_dbus_node *)calloc(1, sizeof *node);
    struct fdmux_timer_options timer;

    memset(&timer, 0, sizeof timer);
    timer.struct_size = sizeof timer;
    timer.fn = fdmux_dbus_on_timeout;
    timer.userdata = timeout;
    if (node == NULL || fdmux_timer_add(dbus->loop, &timer, &node->token) < 0) {
        free(node);
        return FALSE;
    }
    node->dbus = dbus;
    dbus_timeout_set_data(timeout, node, free);
    fdmux_dbus_toggle_timeout(timeout, data);
    return TRUE;
}

static inline void fdmux_dbus_remove_timeout(DBusTimeout *timeout, void *data)
{
    struct fdmux_dbus_node *node =
        (struct fdmux_dbus_node *)dbus_timeout_get_data(timeout);

    (void)data;
    if (node != NULL)
        (void)fdmux_timer_remove(node->dbus->loop, node->token);
    dbus_timeout_set_data(timeout, NULL, NULL);
}

/* ---- dispatching: not inside libdbus' functions, so soon ------------------------- */

static inline void fdmux_dbus_wake(void *data)
{
    struct fdmux_dbus *dbus = (struct fdmux_dbus *)data;

    (void)fdmux_timer_arm(dbus->loop, dbus->timer, FDMUX_SOON, 0);
}

static inline void fdmux_dbus_on_status(DBusConnection *connection,
                                        DBusDispatchStatus status, void *data)
{
    (void)connection;
    if (status != DBUS_DISPATCH_COMPLETE)
        fdmux_dbus_wake(data);
}

/* A callback may detach; the token of the timer tells. */
static inline int fdmux_dbus_on_soon(struct fdmux_loop *loop, uint64_t timer,
                                     void *userdata)
{
    struct fdmux_dbus *dbus = (struct fdmux_dbus *)userdata;
    DBusConnection *connection = dbus_connection_ref(dbus->connection);
    int left = FDMUX_DBUS_BATCH;

    while (dbus_connection_get_dispatch_status(connection) ==
               DBUS_DISPATCH_DATA_REMAINS &&
           left-- > 0 && fdmux_timer_cancel(loop, timer) >= 0)
        dbus_connection_dispatch(connection);
    if (dbus_connection_get_dispatch_status(connection) != DBUS_DISPATCH_COMPLETE)
        (void)fdmux_timer_arm(loop, timer, FDMUX_SOON, 0);
    dbus_connection_unref(connection);
    return 0;
}

/* ---- from attach to detach ------------------------------------------------------ */

/* libdbus calls the add functions for what it has; without functions, the remove ones.
 */
static inline int fdmux_dbus_set_functions(struct fdmux_dbus *dbus, int is_attached)
{
    DBusConnection *connection = dbus->connection;

    if (!is_attached) {
        dbus_connection_set_dispatch_status_function(connection, NULL, NULL, NULL);
        dbus_connection_set_wakeup_main_function(connection, NULL, NULL, NULL);
        dbus_connection_set_watch_functions(connection, NULL, NULL, NULL, NULL, NULL);
        dbus_connection_set_timeout_functions(connection, NULL, NULL, NULL, NULL, NULL);
        return 0;
    }
    if (!dbus_connection_set_watch_functions(connection, fdmux_dbus_add_watch,
                                             fdmux_dbus_remove_watch,
                                             fdmux_dbus_toggle_watch, dbus, NULL) ||
        !dbus_connection_set_timeout_functions(connection, fdmux_dbus_add_timeout,
                                               fdmux_dbus_remove_timeout,
                                               fdmux_dbus_toggle_timeout, dbus, NULL))
        return -ENOMEM;
    dbus_connection_set_wakeup_main_function(connection, fdmux_dbus_wake, dbus, NULL);
    dbus_connection_set_dispatch_status_function(connection, fdmux_dbus_on_status, dbus,
                                                 NULL);
    fdmux_dbus_wake(dbus); /* for messages that came before */
    return 0;
}

/* Let go of the loop. */
static inline void fdmux_dbus_on_close(struct fdmux_loop *loop, void *userdata)
{
    struct fdmux_dbus *dbus = (struct fdmux_dbus *)userdata;

    (void)fdmux_dbus_set_functions(dbus, 0);
    (void)fdmux_timer_remove(loop, dbus->timer);
    (void)fdmux_hook_remove(loop, dbus->close_hook);
    dbus->loop = NULL;
}

/* Let go of the loop and of the connection, and free the adapter. Accepts NULL. */
static inline void fdmux_dbus_detach(struct fdmux_dbus *dbus)
{
    if (dbus == NULL)
        return;
    if (dbus->loop != NULL)
        fdmux_dbus_on_close(dbus->loop, dbus);
    dbus_connection_unref(dbus->connection);
    free(dbus);
}

/* Let `loop` serve `connection`. Returns 0, -ENOMEM, or as fdmux_io_add. */
static inline int fdmux_dbus_attach(struct fdmux_loop *loop, DBusConnection *connection,
                                    struct fdmux_dbus **ret_dbus)
{
    struct fdmux_dbus *dbus = (struct fdmux_dbus *)calloc(1, sizeof *dbus);
    struct fdmux_timer_options timer;
    int r;

    if (dbus == NULL)
        return -ENOMEM;
    dbus->loop = loop;
    dbus->connection = dbus_connection_ref(connection);
    memset(&timer, 0, sizeof timer);
    timer.struct_size = sizeof timer;
    timer.fn = fdmux_dbus_on_soon;
    timer.userdata = dbus;
    r = fdmux_timer_add(loop, &timer, &dbus->timer);
    if (r == 0)
        r = fdmux_loop_at_close(loop, fdmux_dbus_on_close, dbus, &dbus->close_hook);
    if (r == 0)
        r = fdmux_dbus_set_functions(dbus, 1);
    if (r < 0) {
        fdmux_dbus_detach(dbus);
        return r;
    }
    *ret_dbus = dbus;
    return 0;
}

#endif /* FDMUX_ADAPTERS_DBUS_H */
