/* drive_cares.c: each request asks for the address of a name that has its number. */
#include "driver.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fdmux/adapters/cares.h>
#include <netdb.h>
#include <stdio.h>

struct client {
    struct trial *trial;
    struct fdmux_cares *cares;
    int reference_count; /* one for each query, and one of the trial */
    int is_closed;
};

struct query {
    struct client *client;
    int number; /* -1: of begin_timeout */
};

static int live_count;

static const char *version(void)
{
    return ares_version(NULL);
}

static void unref(struct client *client)
{
    if (--client->reference_count > 0)
        return;
    free(client);
    ares_library_cleanup();
    live_count--;
}

static void on_host(void *userdata, int status, int timeouts, struct hostent *host)
{
    struct query query = *(struct query *)userdata;
    struct trial *trial = query.client->trial;

    (void)timeouts;
    free(userdata);
    if (query.client->is_closed)
        ;
    else if (query.number < 0 && status == ARES_ETIMEOUT)
        trial_timed_out(trial);
    else if (status != ARES_SUCCESS)
        trial_failed(trial, query.number);
    else
        trial_answer(trial, query.number,
                     ntohl(*(uint32_t *)(void *)host->h_addr_list[0]) ==
                         (10U << 24 | (uint32_t)query.number));
    unref(query.client);
}

static int open_client(struct trial *trial, void **ret_client)
{
    struct client *client = (struct client *)calloc(1, sizeof *client);
    struct ares_options options;
    int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS;
    char lookups[] = "b"; /* no file /etc/hosts */
    int r;

    if (client == NULL || ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS)
        return -ENOMEM;
    live_count++;
    client->trial = trial;
    client->reference_count = 1;
    *ret_client = client;
    memset(&options, 0, sizeof options);
    options.flags = ARES_FLAG_NOSEARCH;
    options.timeout = 4 * TIMEOUT_MS;
    options.tries = 1;
    options.lookups = lookups;
    r = fdmux_cares_open(trial->loop, &options, mask, &client->cares);
    if (r == 0 && ares_set_servers_ports_csv(client->cares->channel, trial->address) !=
                      ARES_SUCCESS)
        r = -EINVAL;
    if (r == 0)
        trial_ready(trial);
    return r;
}

static int ask(struct client *client, const char *prefix, int number)
{
    struct query *query = (struct query *)malloc(sizeof *query);
    char name[32];

    if (query == NULL)
        return -ENOMEM;
    *query = (struct query){client, number};
    client->reference_count++;
    snprintf(name, sizeof name, "%s%d.test", prefix, number);
    ares_gethostbyname(client->cares->channel, name, AF_INET, on_host, query);
    return 0;
}

static int request(void *userdata, int number)
{
    return ask((struct client *)userdata, "n", number);
}

static int begin_timeout(void *userdata)
{
    return ask((struct client *)userdata, "drop", -1);
}

static void close_client(void *userdata)
{
    struct client *client = (struct client *)userdata;

    client->is_closed = 1;
    fdmux_cares_close(client->cares);
    unref(client);
}

const struct library library_cares = {
    .name = "cares",
    .version = version,
    .timeout_ms = 4 * TIMEOUT_MS,
    .open = open_client,
    .request = request,
    .begin_timeout = begin_timeout,
    .close = close_client,
    .live_count = &live_count,
};
