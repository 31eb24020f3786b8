/* dns.c: the IPv4 address of a name, by c-ares. */
#include "clients.h"

#include <arpa/inet.h>
#include <fdmux/adapters/cares.h>
#include <netdb.h>

enum { TIMEOUT_MS = 1000, TRIES = 3 };

struct dns {
    struct fdmux_loop *loop;
    struct fdmux_cares *cares;
};

static int dns_open(struct fdmux_loop *loop, const char *address, void **ret_client)
{
    struct dns *dns = (struct dns *)calloc(1, sizeof *dns);
    int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS;
    struct ares_options options;
    char lookups[] = "b"; /* the server, not /etc/hosts */
    int r;

    if (dns == NULL)
        return -ENOMEM;
    memset(&options, 0, sizeof options);
    options.flags = ARES_FLAG_NOSEARCH;
    options.timeout = TIMEOUT_MS;
    options.tries = TRIES;
    options.lookups = lookups;
    dns->loop = loop;
    r = fdmux_cares_open(loop, &options, mask, &dns->cares);
    if (r == 0 &&
        ares_set_servers_ports_csv(dns->cares->channel, address) != ARES_SUCCESS)
        r = -EINVAL;
    if (r < 0) {
        fdmux_cares_close(dns->cares); /* accepts NULL */
        free(dns);
        return r;
    }
    *ret_client = dns;
    return 0;
}

static void on_host(void *userdata, int status, int timeouts, struct hostent *host)
{
    char text[INET_ADDRSTRLEN] = "";

    (void)timeouts;
    if (status == ARES_SUCCESS)
        (void)inet_ntop(AF_INET, host->h_addr_list[0], text, sizeof text); /* fits */
    if (status == ARES_SUCCESS)
        answer_kept((struct asker *)userdata, text, NULL);
    else if (status == ARES_ENOTFOUND)
        answer_kept((struct asker *)userdata, NULL, NULL);
    else
        answer_kept((struct asker *)userdata, NULL, ares_strerror(status));
}

static int dns_ask(void *client, const char *question, struct asker asker)
{
    const struct dns *dns = (const struct dns *)client;
    struct asker *kept = keep_asker(asker);

    if (kept == NULL)
        return -ENOMEM;
    ares_gethostbyname(dns->cares->channel, question, AF_INET, on_host, kept);
    (void)fdmux_loop_wake(dns->loop); /* cares.h looks for timeouts before a wait */
    return 0;
}

static void dns_close(void *client)
{
    struct dns *dns = (struct dns *)client;

    ares_cancel(dns->cares->channel); /* answers all of them now */
    fdmux_cares_close(dns->cares);
    free(dns);
}

const struct client_kind dns_kind = {"dns", dns_open, dns_ask, dns_close};
