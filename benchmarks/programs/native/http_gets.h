/* GETs over HTTP by libcurl's multi interface; the answer to /n/NUMBER is NUMBER. */
#ifndef FDMUX_BENCHMARKS_HTTP_GETS_H
#define FDMUX_BENCHMARKS_HTTP_GETS_H

#include "gets.h"

#include <curl/curl.h>

struct transfer {
    CURL *easy;
    char url[64];
    char number[16];
    char body[16];
    size_t size;
};

static struct http_gets {
    CURLM *multi;
    int port;
    struct transfer transfers[IN_FLIGHT];
} http_gets;

static inline size_t gets_on_body(char *data, size_t size, size_t count, void *userdata)
{
    struct transfer *transfer = userdata;

    if (transfer->size + size * count > sizeof transfer->body)
        return 0; /* libcurl fails the transfer */
    memcpy(transfer->body + transfer->size, data, size * count);
    transfer->size += size * count;
    return size * count;
}

static inline int gets_ask(int place)
{
    struct transfer *transfer = &http_gets.transfers[place];

    transfer->size = 0;
    (void)snprintf(transfer->number, sizeof transfer->number, "%ld", gets.asked);
    (void)snprintf(transfer->url, sizeof transfer->url, "http://127.0.0.1:%d/n/%s",
                   http_gets.port, transfer->number);
    if (curl_easy_setopt(transfer->easy, CURLOPT_URL, transfer->url) != CURLE_OK ||
        curl_multi_add_handle(http_gets.multi, transfer->easy) != CURLM_OK)
        return -EIO;
    return 0;
}

/* Every contender calls this when a transfer is over and its handle was removed. */
static inline void http_gets_done(CURL *easy, CURLcode result)
{
    char *private = NULL;
    const struct transfer *transfer;

    (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private); /* was set */
    transfer = (const struct transfer *)(const void *)private;
    gets_answer((int)(transfer - http_gets.transfers),
                result == CURLE_OK && transfer->size == strlen(transfer->number) &&
                    memcmp(transfer->body, transfer->number, transfer->size) == 0);
}

static inline int gets_open(int port)
{
    http_gets.port = port;
    http_gets.multi = curl_multi_init();
    if (http_gets.multi == NULL)
        return -ENOMEM;
    (void)curl_multi_setopt(http_gets.multi, CURLMOPT_MAXCONNECTS, (long)IN_FLIGHT);
    for (int i = 0; i < IN_FLIGHT; i++) {
        struct transfer *transfer = &http_gets.transfers[i];

        transfer->easy = curl_easy_init();
        if (transfer->easy == NULL)
            return -ENOMEM;
        (void)curl_easy_setopt(transfer->easy, CURLOPT_PRIVATE, (void *)transfer);
        (void)curl_easy_setopt(transfer->easy, CURLOPT_WRITEFUNCTION, gets_on_body);
        (void)curl_easy_setopt(transfer->easy, CURLOPT_WRITEDATA, (void *)transfer);
        (void)curl_easy_setopt(transfer->easy, CURLOPT_PROXY, "");
        (void)curl_easy_setopt(transfer->easy, CURLOPT_NOSIGNAL, 1L);
    }
    return 0;
}

#endif
