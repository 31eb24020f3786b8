/* drive_curl.c: each request is a GET of /n/NUMBER, which is answered by the number. */
#include "driver.h"

#include <errno.h>
#include <fdmux/adapters/curl.h>
#include <stdio.h>

struct client {
    struct trial *trial;
    CURLM *multi;
    struct fdmux_curl *curl;
    struct transfer *transfers; /* not freed yet */
};

struct transfer {
    struct client *client;
    struct transfer *next, **link;
    CURL *easy;
    int number; /* -1: of begin_timeout */
    char body[16];
    size_t size;
};

static int live_count;

static const char *version(void)
{
    return curl_version_info(CURLVERSION_NOW)->version;
}

static size_t on_body(char *data, size_t size, size_t count, void *userdata)
{
    struct transfer *transfer = (struct transfer *)userdata;

    if (transfer->size + size * count >= sizeof transfer->body)
        return 0;
    memcpy(transfer->body + transfer->size, data, size * count);
    transfer->size += size * count;
    return size * count;
}

static void free_transfer(struct transfer *transfer)
{
    *transfer->link = transfer->next;
    if (transfer->next != NULL)
        transfer->next->link = transfer->link;
    curl_easy_cleanup(transfer->easy);
    free(transfer);
}

static void on_done(CURL *easy, CURLcode result, void *userdata)
{
    struct trial *trial = ((struct client *)userdata)->trial;
    struct transfer *transfer;
    char text[16];
    int number, is_right;

    curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&transfer);
    number = transfer->number;
    snprintf(text, sizeof text, "%d", number);
    is_right = transfer->size == strlen(text) &&
               memcmp(transfer->body, text, transfer->size) == 0;
    free_transfer(transfer);
    if (number < 0 && result == CURLE_OPERATION_TIMEDOUT)
        trial_timed_out(trial);
    else if (result != CURLE_OK)
        trial_failed(trial, number);
    else
        trial_answer(trial, number, is_right);
}

static int open_client(struct trial *trial, void **ret_client)
{
    struct client *client = (struct client *)calloc(1, sizeof *client);
    int r;

    if (client == NULL)
        return -ENOMEM;
    live_count++;
    client->trial = trial;
    client->multi = curl_multi_init();
    *ret_client = client;
    r = fdmux_curl_attach(trial->loop, client->multi, on_done, client, &client->curl);
    if (r == 0)
        trial_ready(trial);
    return r;
}

static struct transfer *begin(struct client *client, const char *authority, int number)
{
    struct transfer *transfer = (struct transfer *)calloc(1, sizeof *transfer);
    char url[128];

    if (transfer == NULL)
        return NULL;
    transfer->client = client;
    transfer->number = number;
    transfer->next = client->transfers;
    transfer->link = &client->transfers;
    if (transfer->next != NULL)
        transfer->next->link = &transfer->next;
    client->transfers = transfer;
    transfer->easy = curl_easy_init();
    snprintf(url, sizeof url, "http://%s/n/%d", authority, number);
    curl_easy_setopt(transfer->easy, CURLOPT_URL, url);
    curl_easy_setopt(transfer->easy, CURLOPT_PRIVATE, transfer);
    curl_easy_setopt(transfer->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(transfer->easy, CURLOPT_WRITEDATA, transfer);
    curl_easy_setopt(transfer->easy, CURLOPT_NOSIGNAL, 1L);
    return transfer;
}

static int request(void *userdata, int number)
{
    struct client *client = (struct client *)userdata;
    struct transfer *transfer = begin(client, client->trial->address, number);

    if (transfer == NULL ||
        curl_multi_add_handle(client->multi, transfer->easy) != CURLM_OK)
        return -EIO;
    return 0;
}

static int begin_timeout(void *userdata)
{
    struct client *client = (struct client *)userdata;
    struct transfer *transfer = begin(client, client->trial->silent, -1);

    if (transfer == NULL)
        return -ENOMEM;
    curl_easy_setopt(transfer->easy, CURLOPT_TIMEOUT_MS, (long)TIMEOUT_MS);
    return curl_multi_add_handle(client->multi, transfer->easy) == CURLM_OK ? 0 : -EIO;
}

static void close_client(void *userdata)
{
    struct client *client = (struct client *)userdata;

    fdmux_curl_detach(client->curl); /* with transfers in flight */
    while (client->transfers != NULL) {
        curl_multi_remove_handle(client->multi, client->transfers->easy);
        free_transfer(client->transfers);
    }
    curl_multi_cleanup(client->multi);
    free(client);
    live_count--;
}

const struct library library_curl = {
    .name = "curl",
    .version = version,
    .timeout_ms = TIMEOUT_MS,
    .open = open_client,
    .request = request,
    .begin_timeout = begin_timeout,
    .close = close_client,
    .live_count = &live_count,
};
