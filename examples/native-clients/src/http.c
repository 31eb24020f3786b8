/* http.c: GETs over HTTP, by libcurl, which keeps connections for the next ones. The
 * answer is the body; a status of 400 and more is an error. */
#include "clients.h"

#include <fdmux/adapters/curl.h>

enum { TIMEOUT_MS = 10000, BODY_MAX = 1 << 20 };

struct http {
    CURLM *multi;
    struct fdmux_curl *curl;
    char base[128];
    struct transfer *transfers;
};

struct transfer {
    struct transfer *next, **link; /* what points to it */
    CURL *easy;
    struct asker asker;
    char *body; /* NULL, or with a NUL at its end */
    size_t size;
};

static void end_transfer(struct transfer *transfer, const char *error)
{
    struct asker asker = transfer->asker;
    char *body = transfer->body;

    *transfer->link = transfer->next;
    if (transfer->next != NULL)
        transfer->next->link = transfer->link;
    curl_easy_cleanup(transfer->easy);
    free(transfer);
    asker.answer(asker.userdata,
                 error != NULL  ? NULL
                 : body != NULL ? body
                                : "",
                 error);
    free(body);
}

static void on_done(CURL *easy, CURLcode result, void *userdata)
{
    char *address = NULL;

    (void)userdata;
    (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, &address); /* was set */
    end_transfer((struct transfer *)(void *)address,
                 result == CURLE_OK ? NULL : curl_easy_strerror(result));
}

static size_t on_body(char *data, size_t size, size_t count, void *userdata)
{
    struct transfer *transfer = (struct transfer *)userdata;
    size_t added = size * count;
    char *body;

    if (added > BODY_MAX - transfer->size)
        return 0; /* fails the transfer */
    body = (char *)realloc(transfer->body, transfer->size + added + 1);
    if (body == NULL)
        return 0;
    memcpy(body + transfer->size, data, added);
    transfer->body = body;
    transfer->size += added;
    body[transfer->size] = '\0';
    return added;
}

static void http_close(void *client)
{
    struct http *http = (struct http *)client;
    struct transfer *transfer;

    fdmux_curl_detach(http->curl);
    while ((transfer = http->transfers) != NULL) {
        (void)curl_multi_remove_handle(http->multi, transfer->easy);
        http->transfers =
            transfer->next; /* end_transfer does the same through `link` */
        end_transfer(transfer, "the client was closed");
    }
    (void)curl_multi_cleanup(http->multi); /* accepts NULL */
    free(http);
}

static int http_open(struct fdmux_loop *loop, const char *address, void **ret_client)
{
    struct http *http = (struct http *)calloc(1, sizeof *http);
    int r = -ENOMEM;

    if (http == NULL)
        return -ENOMEM;
    (void)snprintf(http->base, sizeof http->base, "%s", address);
    http->multi = curl_multi_init();
    if (http->multi != NULL)
        r = fdmux_curl_attach(loop, http->multi, on_done, http, &http->curl);
    if (r < 0)
        http_close(http);
    else
        *ret_client = http;
    return r;
}

static int set_options(const struct http *http, struct transfer *transfer,
                       const char *path)
{
    CURL *easy = transfer->easy;
    char url[512];
    int size = snprintf(url, sizeof url, "%s%s", http->base, path);

    if (size < 0 || (size_t)size >= sizeof url)
        return -ENAMETOOLONG;
    if (curl_easy_setopt(easy, CURLOPT_URL, url) != CURLE_OK ||
        curl_easy_setopt(easy, CURLOPT_PRIVATE, (void *)transfer) != CURLE_OK ||
        curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body) != CURLE_OK ||
        curl_easy_setopt(easy, CURLOPT_WRITEDATA, (void *)transfer) != CURLE_OK ||
        curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)TIMEOUT_MS) != CURLE_OK ||
        curl_easy_setopt(easy, CURLOPT_FAILONERROR, 1L) != CURLE_OK ||
        curl_easy_setopt(easy, CURLOPT_PROXY, "") != CURLE_OK ||
        curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) != CURLE_OK) /* Python's threads */
        return -ENOMEM;
    return 0;
}

static int http_ask(void *client, const char *question, struct asker asker)
{
    struct http *http = (struct http *)client;
    struct transfer *transfer = (struct transfer *)calloc(1, sizeof *transfer);
    int r = -ENOMEM;

    if (transfer == NULL)
        return -ENOMEM;
    transfer->asker = asker;
    transfer->easy = curl_easy_init();
    if (transfer->easy != NULL)
        r = set_options(http, transfer, question);
    if (r == 0 && curl_multi_add_handle(http->multi, transfer->easy) != CURLM_OK)
        r = -ENOMEM;
    if (r < 0) {
        curl_easy_cleanup(transfer->easy); /* accepts NULL */
        free(transfer);
        return r;
    }
    transfer->next = http->transfers;
    transfer->link = &http->transfers;
    if (transfer->next != NULL)
        transfer->next->link = &transfer->next;
    http->transfers = transfer;
    return 0;
}

const struct client_kind http_kind = {"http", http_open, http_ask, http_close};
