/* libpq.h: PostgreSQL, by libpq's asynchronous functions, in an fdmux loop.
 *
 *     PGconn *conn = PQconnectStart("host=127.0.0.1 user=postgres");
 *     r = fdmux_libpq_attach(loop, conn, &functions, userdata, &libpq);
 *     ... in on_status, once it says CONNECTION_OK:
 *     PQsendQueryParams(conn, "SELECT $1::int", ...);
 *
 * The adapter connects, reads, flushes and hands over results. It makes the connection
 * non-blocking. After you have sent something outside of the functions below, call
 * fdmux_libpq_flush.
 *
 * Ownership: the connection is yours. Call fdmux_libpq_detach once, before PQfinish;
 *   both may be called inside the functions below.
 * Threads: the loop's.
 * End of the loop: the connection stays as it is; detach and finish it as usual. To end
 *   it while the loop works, add a function of your own with fdmux_loop_at_close after
 *   attach: it runs before the adapter's.
 * Timeouts: the server's (statement_timeout). libpq has none for connecting without
 *   blocking: detach in a timer of yours.
 * Tested with libpq 15.20; not in pipeline mode.
 *
 * In a Python extension include Python.h and fdmux_python.h first. */
#ifndef FDMUX_ADAPTERS_LIBPQ_H
#define FDMUX_ADAPTERS_LIBPQ_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <fdmux.h>
#include <libpq-fe.h>

struct fdmux_libpq_functions {
    /* CONNECTION_OK: connected. CONNECTION_BAD: connecting failed, or the connection is
     * lost; PQerrorMessage says why. Then detach, or call fdmux_libpq_reset. */
    void (*status)(PGconn *conn, ConnStatusType status, void *userdata);
    /* A result, yours to PQclear; then NULL, when the command is complete and another
     * may be sent. With PGRES_COPY_OUT it is called whenever PQgetCopyData may have
     * more: take all there is. */
    void (*result)(PGconn *conn, PGresult *result, void *userdata);
    /* A notification, yours to PQfreemem; NULL if you do not LISTEN. */
    void (*notify)(PGconn *conn, PGnotify *notify, void *userdata);
};

struct fdmux_libpq {
    struct fdmux_loop *loop; /* NULL after its end */
    PGconn *conn;            /* NULL after detach */
    const struct fdmux_libpq_functions *functions;
    void *userdata;
    uint64_t io, close_hook;
    uint32_t events;
    int is_connecting;
    int is_active; /* a result was handed over, and the NULL after it was not yet */
    int depth;     /* how many functions below use this struct */
};

static inline void fdmux_libpq_watch(struct fdmux_libpq *libpq, uint32_t events)
{
    if (libpq->loop == NULL || libpq->events == events)
        return;
    if (fdmux_io_update(libpq->loop, libpq->io, events) == 0)
        libpq->events = events;
}

/* libpq closes its socket and opens another as it likes, often with the same number. */
static inline int fdmux_libpq_watch_anew(struct fdmux_libpq *libpq, uint32_t events)
{
    int fd = PQsocket(libpq->conn);

    libpq->events = events;
    return fdmux_io_replace_fd(libpq->loop, libpq->io, fd, fd < 0 ? 0 : events);
}

static inline void fdmux_libpq_report(struct fdmux_libpq *libpq, ConnStatusType status)
{
    libpq->is_connecting = 0;
    libpq->functions->status(libpq->conn, status, libpq->userdata);
}

/* Send what the kernel takes now, and the rest when it is ready. Call this after a
 * PQsend function outside of the functions of struct fdmux_libpq_functions; after those
 * the adapter does. Returns 0, or -EIO: the connection is lost, which `status` will
 * report. */
static inline int fdmux_libpq_flush(struct fdmux_libpq *libpq)
{
    int left = PQflush(libpq->conn);

    fdmux_libpq_watch(libpq, FDMUX_READ | (left == 0 ? 0U : (uint32_t)FDMUX_WRITE));
    return left < 0 ? -EIO : 0;
}

static inline void fdmux_libpq_connect_more(struct fdmux_libpq *libpq)
{
    switch (PQconnectPoll(libpq->conn)) {
    case PGRES_POLLING_READING:
        (void)fdmux_libpq_watch_anew(libpq, FDMUX_READ);
        break;
    case PGRES_POLLING_WRITING:
        (void)fdmux_libpq_watch_anew(libpq, FDMUX_WRITE);
        break;
    case PGRES_POLLING_OK:
        (void)fdmux_libpq_watch_anew(libpq, FDMUX_READ);
        PQsetnonblocking(libpq->conn, 1);
        fdmux_libpq_report(libpq, CONNECTION_OK);
        break;
    default:
        (void)fdmux_libpq_watch_anew(libpq, 0);
        fdmux_libpq_report(libpq, CONNECTION_BAD);
        break;
    }
}

static inline int fdmux_libpq_is_copy(const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);

    return status == PGRES_COPY_IN || status == PGRES_COPY_OUT ||
           status == PGRES_COPY_BOTH;
}

static inline void fdmux_libpq_hand_over(struct fdmux_libpq *libpq)
{
    PGnotify *notify;
    int is_copying = 0;

    while (libpq->conn != NULL && !PQisBusy(libpq->conn)) {
        PGresult *result = PQgetResult(libpq->conn);
        int was_copying = is_copying;

        is_copying = fdmux_libpq_is_copy(result);
        if (was_copying && is_copying) { /* PQgetResult says so until the copy ends */
            PQclear(result);
            break;
        }
        if (result == NULL && !libpq->is_active)
            break;
        libpq->is_active = result != NULL;
        libpq->functions->result(libpq->conn, result, libpq->userdata);
    }
    while (libpq->conn != NULL && libpq->functions->notify != NULL &&
           (notify = PQnotifies(libpq->conn)) != NULL)
        libpq->functions->notify(libpq->conn, notify, libpq->userdata);
}

static inline void fdmux_libpq_transfer(struct fdmux_libpq *libpq, uint32_t events)
{
    int is_good = !(events & FDMUX_READ) || PQconsumeInput(libpq->conn);

    fdmux_libpq_hand_over(libpq); /* of a lost connection, the error */
    if (libpq->conn == NULL || libpq->is_connecting ||
        (is_good && PQstatus(libpq->conn) == CONNECTION_OK))
        return;
    (void)fdmux_libpq_watch_anew(libpq, 0);
    fdmux_libpq_report(libpq, CONNECTION_BAD);
}

static inline int fdmux_libpq_on_ready(struct fdmux_loop *loop, uint64_t io,
                                       uint32_t events, void *userdata)
{
    struct fdmux_libpq *libpq = (struct fdmux_libpq *)userdata;

    (void)loop;
    (void)io;
    libpq->depth++;
    if (libpq->is_connecting)
        fdmux_libpq_connect_more(libpq);
    else
        fdmux_libpq_transfer(libpq, events);
    if (libpq->conn != NULL && libpq->loop != NULL && !libpq->is_connecting &&
        PQstatus(libpq->conn) == CONNECTION_OK)
        (void)fdmux_libpq_flush(libpq); /* what is left, and what a function has sent */
    if (--libpq->depth == 0 && libpq->conn == NULL)
        free(libpq);
    return 0;
}

/* Begin to connect again, as PQresetStart does. Returns 0, or -EIO. */
static inline int fdmux_libpq_reset(struct fdmux_libpq *libpq)
{
    if (!PQresetStart(libpq->conn))
        return -EIO;
    libpq->is_connecting = 1;
    libpq->is_active = 0;
    return fdmux_libpq_watch_anew(libpq, FDMUX_WRITE);
}

/* Let go of the loop. */
static inline void fdmux_libpq_on_close(struct fdmux_loop *loop, void *userdata)
{
    struct fdmux_libpq *libpq = (struct fdmux_libpq *)userdata;

    (void)fdmux_io_remove(loop, libpq->io);
    (void)fdmux_hook_remove(loop, libpq->close_hook);
    libpq->loop = NULL;
}

/* Let go of the loop and of the connection, and free the adapter. Accepts NULL. */
static inline void fdmux_libpq_detach(struct fdmux_libpq *libpq)
{
    if (libpq == NULL)
        return;
    if (libpq->loop != NULL)
        fdmux_libpq_on_close(libpq->loop, libpq);
    libpq->conn = NULL;
    if (libpq->depth == 0)
        free(libpq);
}

/* Let `loop` serve `conn`, which is from PQconnectStart and the like, or connected.
 *
 * `functions` must stay valid. Returns 0; -ENOTCONN for a connection that has failed
 * already; or as fdmux_io_add. */
static inline int fdmux_libpq_attach(struct fdmux_loop *loop, PGconn *conn,
                                     const struct fdmux_libpq_functions *functions,
                                     void *userdata, struct fdmux_libpq **ret_libpq)
{
    struct fdmux_libpq *libpq;
    struct fdmux_io_options io;
    int r;

    if (conn == NULL || PQstatus(conn) == CONNECTION_BAD)
        return -ENOTCONN;
    libpq = (struct fdmux_libpq *)calloc(1, sizeof *libpq);
    if (libpq == NULL)
        return -ENOMEM;
    libpq->loop = loop;
    libpq->conn = conn;
    libpq->functions = functions;
    libpq->userdata = userdata;
    libpq->is_connecting = 1; /* of a connected one PQconnectPoll says so */
    libpq->events = FDMUX_WRITE;
    memset(&io, 0, sizeof io);
    io.struct_size = sizeof io;
    io.fd = PQsocket(conn);
    io.events = libpq->events;
    io.fn = fdmux_libpq_on_ready;
    io.userdata = libpq;
    r = fdmux_io_add(loop, &io, &libpq->io);
    if (r == 0)
        r = fdmux_loop_at_close(loop, fdmux_libpq_on_close, libpq, &libpq->close_hook);
    if (r < 0) {
        fdmux_libpq_detach(libpq);
        return r;
    }
    *ret_libpq = libpq;
    return 0;
}

#endif /* FDMUX_ADAPTERS_LIBPQ_H */
