/* drive_libpq.c: each request is a SELECT of its number. libpq has one command in
 * flight at a time, so the driver has a queue. */
#include "driver.h"

#include <errno.h>
#include <fdmux/adapters/libpq.h>
#include <stdio.h>

#define QUEUE_MAX 1024
#define COPY_COUNT 20000 /* rows; more than one read of libpq takes */
#define HELLO                                                                          \
    "LISTEN fdmux; NOTIFY fdmux, 'hello';"                                             \
    "COPY (SELECT generate_series(1, 20000)) TO STDOUT"

struct client {
    struct trial *trial;
    PGconn *conn;
    struct fdmux_libpq *libpq;
    int queue[QUEUE_MAX];
    int first, count;
    int is_asked, is_timing;
    int notify_count, copy_count;
};

static int live_count;

static const char *version(void)
{
    static char text[32];

    snprintf(text, sizeof text, "%d.%d", PQlibVersion() / 10000,
             PQlibVersion() % 10000);
    return text;
}

static int send_next(struct client *client)
{
    char text[16];
    const char *values[] = {text};

    if (client->is_asked || client->count == 0)
        return 0;
    client->is_asked = 1;
    snprintf(text, sizeof text, "%d", client->queue[client->first]);
    return PQsendQueryParams(client->conn, "SELECT $1::int", 1, NULL, values, NULL,
                             NULL, 0)
               ? 0
               : -EIO;
}

static void on_status(PGconn *conn, ConnStatusType status, void *userdata)
{
    struct client *client = (struct client *)userdata;

    client->first = client->count = 0;
    client->notify_count = client->copy_count = 0;
    client->is_asked = status == CONNECTION_OK && PQsendQuery(conn, HELLO);
    if (!client->is_asked)
        trial_lost(client->trial);
}

static void be_ready_if_greeted(struct client *client)
{
    if (client->is_asked || client->notify_count == 0 ||
        client->copy_count != COPY_COUNT)
        return;
    client->copy_count = 0; /* once */
    trial_ready(client->trial);
}

static void on_notify(PGconn *conn, PGnotify *notify, void *userdata)
{
    struct client *client = (struct client *)userdata;

    (void)conn;
    client->notify_count += strcmp(notify->extra, "hello") == 0;
    PQfreemem(notify);
    be_ready_if_greeted(client);
}

static void copy(struct client *client)
{
    char *row;

    while (PQgetCopyData(client->conn, &row, 1) > 0) {
        client->copy_count++;
        PQfreemem(row);
    }
}

/* Is `result` the number? */
static int is_number(const PGresult *result, int number)
{
    char text[16];

    snprintf(text, sizeof text, "%d", number);
    return PQntuples(result) == 1 && strcmp(PQgetvalue(result, 0, 0), text) == 0;
}

static void on_error(struct client *client, const PGresult *result)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

    if (client->is_timing && state != NULL && strcmp(state, "57014") == 0)
        trial_timed_out(client->trial); /* query_canceled */
}

static void on_result(PGconn *conn, PGresult *result, void *userdata)
{
    struct client *client = (struct client *)userdata;
    struct trial *trial = client->trial;
    int number, is_right;

    (void)conn;
    if (result == NULL) { /* the command is complete */
        client->is_asked = 0;
        be_ready_if_greeted(client);
        (void)send_next(client);
        return;
    }
    if (PQresultStatus(result) != PGRES_TUPLES_OK) {
        if (PQresultStatus(result) == PGRES_COPY_OUT)
            copy(client);
        on_error(client, result);
        PQclear(result);
        return;
    }
    number = client->queue[client->first];
    client->first = (client->first + 1) % QUEUE_MAX;
    client->count--;
    is_right = is_number(result, number);
    PQclear(result);
    trial_answer(trial, number, is_right); /* may close the client */
}

static const struct fdmux_libpq_functions functions = {on_status, on_result, on_notify};

/* A server that is killed says so; libpq would print it. */
static void on_notice(void *userdata, const char *message)
{
    (void)userdata;
    (void)message;
}

static int open_client(struct trial *trial, void **ret_client)
{
    struct client *client = (struct client *)calloc(1, sizeof *client);

    if (client == NULL)
        return -ENOMEM;
    live_count++;
    client->trial = trial;
    client->conn = PQconnectStart(trial->address);
    PQsetNoticeProcessor(client->conn, on_notice, NULL);
    *ret_client = client;
    return fdmux_libpq_attach(trial->loop, client->conn, &functions, client,
                              &client->libpq);
}

static int request(void *userdata, int number)
{
    struct client *client = (struct client *)userdata;
    int is_idle = !client->is_asked;

    client->queue[(client->first + client->count++) % QUEUE_MAX] = number;
    if (send_next(client) < 0)
        return -EIO;
    return is_idle ? fdmux_libpq_flush(client->libpq) : 0;
}

static int begin_timeout(void *userdata)
{
    struct client *client = (struct client *)userdata;
    char text[96];

    snprintf(text, sizeof text, "SET statement_timeout = %d; SELECT pg_sleep(60)",
             TIMEOUT_MS);
    client->is_asked = client->is_timing = 1;
    if (!PQsendQuery(client->conn, text))
        return -EIO;
    return fdmux_libpq_flush(client->libpq);
}

static int reopen(void *userdata)
{
    return fdmux_libpq_reset(((struct client *)userdata)->libpq);
}

static void close_client(void *userdata)
{
    struct client *client = (struct client *)userdata;

    fdmux_libpq_detach(client->libpq);
    PQfinish(client->conn);
    free(client);
    live_count--;
}

const struct library library_libpq = {
    .name = "libpq",
    .version = version,
    .timeout_ms = TIMEOUT_MS,
    .open = open_client,
    .request = request,
    .begin_timeout = begin_timeout,
    .reopen = reopen,
    .close = close_client,
    .live_count = &live_count,
};
