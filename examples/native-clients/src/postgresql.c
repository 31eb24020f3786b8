/* postgresql.c: queries, by libpq, one after the other on one connection. The answer is
 * the first value. Connects again when it is asked after the connection was lost. */
#include "clients.h"

#include <fdmux/adapters/libpq.h>

struct query {
    struct query *next;
    struct asker asker;
    char text[]; /* of SQL */
};

struct postgresql {
    PGconn *conn;
    struct fdmux_libpq *libpq;
    int is_connected;
    int is_lost;
    int is_busy; /* the first query is with the server */
    struct query *first, **end;
};

/* Take the first query off the queue, and answer it. */
static void answer_first(struct postgresql *client, const char *text, const char *error)
{
    struct query *query = client->first;
    struct asker asker = query->asker;

    client->first = query->next;
    if (client->first == NULL)
        client->end = &client->first;
    free(query);
    asker.answer(asker.userdata, text, error);
}

static void fail_all(struct postgresql *client, const char *error)
{
    client->is_busy = 0;
    while (client->first != NULL)
        answer_first(client, NULL, error);
}

/* Send the first query, if the server has none. */
static void send_first(struct postgresql *client)
{
    while (client->is_connected && !client->is_busy && client->first != NULL) {
        if (!PQsendQuery(client->conn, client->first->text)) {
            answer_first(client, NULL, PQerrorMessage(client->conn));
            continue;
        }
        client->is_busy = 1;
        (void)fdmux_libpq_flush(
            client->libpq); /* on_status reports a lost connection */
    }
}

static void on_status(PGconn *conn, ConnStatusType status, void *userdata)
{
    struct postgresql *client = (struct postgresql *)userdata;

    client->is_connected = status == CONNECTION_OK;
    client->is_lost = !client->is_connected;
    if (client->is_lost)
        fail_all(client, PQerrorMessage(conn));
    else
        send_first(client);
}

/* A query may have several results: the first of them answers it, and NULL ends it. */
static void on_result(PGconn *conn, PGresult *result, void *userdata)
{
    struct postgresql *client = (struct postgresql *)userdata;
    ExecStatusType status = PQresultStatus(result);

    (void)conn;
    if (result == NULL) {
        client->is_busy = 0;
        send_first(client);
        return;
    }
    if (client->first != NULL && client->is_busy == 1) {
        client->is_busy = 2; /* answered */
        if (status == PGRES_TUPLES_OK && PQntuples(result) > 0)
            answer_first(client, PQgetvalue(result, 0, 0), NULL);
        else if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
            answer_first(client, NULL, NULL);
        else
            answer_first(client, NULL, PQresultErrorMessage(result));
    }
    PQclear(result);
}

static const struct fdmux_libpq_functions functions = {on_status, on_result, NULL};

static void postgresql_close(void *data)
{
    struct postgresql *client = (struct postgresql *)data;

    fail_all(client, "the client was closed");
    fdmux_libpq_detach(client->libpq);
    PQfinish(client->conn); /* accepts NULL */
    free(client);
}

static int postgresql_open(struct fdmux_loop *loop, const char *address,
                           void **ret_client)
{
    struct postgresql *client = (struct postgresql *)calloc(1, sizeof *client);
    int r;

    if (client == NULL)
        return -ENOMEM;
    client->end = &client->first;
    client->conn = PQconnectStart(address);
    r = fdmux_libpq_attach(loop, client->conn, &functions, client, &client->libpq);
    if (r < 0)
        postgresql_close(client);
    else
        *ret_client = client;
    return r;
}

static int postgresql_ask(void *data, const char *question, struct asker asker)
{
    struct postgresql *client = (struct postgresql *)data;
    size_t size = strlen(question) + 1;
    struct query *query;

    if (client->is_lost && fdmux_libpq_reset(client->libpq) < 0)
        return -ENOTCONN;
    client->is_lost = 0;
    query = (struct query *)malloc(sizeof *query + size);
    if (query == NULL)
        return -ENOMEM;
    query->next = NULL;
    query->asker = asker;
    memcpy(query->text, question, size);
    *client->end = query;
    client->end = &query->next;
    send_first(client);
    return 0;
}

const struct client_kind postgresql_kind = {"postgresql", postgresql_open,
                                            postgresql_ask, postgresql_close};
