/* redis.c: commands for Redis, by hiredis. Connects when it is asked, and again after
 * the connection was lost; questions that were on their way then get an error. */
#include "clients.h"

#include <fdmux/adapters/hiredis.h>

enum { WORDS_MAX = 8 };

struct redis {
    struct fdmux_loop *loop;
    char host[64];
    int port;
    redisAsyncContext *context; /* NULL: not connected */
    uint64_t close_hook;
};

/* hiredis frees the context after this. */
static void forget(const redisAsyncContext *context, int status)
{
    struct redis *redis = (struct redis *)context->data;

    (void)status;
    if (redis != NULL && redis->context == context)
        redis->context = NULL;
}

static void on_connect(const redisAsyncContext *context, int status)
{
    if (status != REDIS_OK)
        forget(context, status);
}

static int connect_redis(struct redis *redis)
{
    redisAsyncContext *context;
    int r;

    if (redis->loop == NULL)
        return -ESTALE;
    context = redisAsyncConnect(redis->host, redis->port);
    if (context == NULL)
        return -ENOMEM;
    r = context->err != 0 ? -ENOTCONN : fdmux_hiredis_attach(redis->loop, context);
    if (r < 0) {
        redisAsyncFree(context);
        return r;
    }
    context->data = redis;
    redis->context = context;
    (void)redisAsyncSetConnectCallback(context, on_connect); /* the first to be set */
    (void)redisAsyncSetDisconnectCallback(context, forget);
    return 0;
}

/* The adapter has freed the context, if there was one. */
static void on_loop_close(struct fdmux_loop *loop, void *userdata)
{
    struct redis *redis = (struct redis *)userdata;

    (void)loop;
    redis->context = NULL;
    redis->loop = NULL;
}

static int redis_open(struct fdmux_loop *loop, const char *address, void **ret_client)
{
    struct redis *redis = (struct redis *)calloc(1, sizeof *redis);
    int r;

    if (redis == NULL)
        return -ENOMEM;
    redis->loop = loop;
    redis->port = split_address(address, redis->host, sizeof redis->host);
    r = redis->port < 0
            ? redis->port
            : fdmux_loop_at_close(loop, on_loop_close, redis, &redis->close_hook);
    if (r < 0)
        free(redis);
    else
        *ret_client = redis;
    return r;
}

static void on_reply(redisAsyncContext *context, void *data, void *userdata)
{
    const redisReply *reply = (const redisReply *)data;
    char number[32];

    (void)context;
    if (reply == NULL) {
        answer_kept((struct asker *)userdata, NULL, "the connection was lost");
    } else if (reply->type == REDIS_REPLY_ERROR) {
        answer_kept((struct asker *)userdata, NULL, reply->str);
    } else if (reply->type == REDIS_REPLY_INTEGER) {
        (void)snprintf(number, sizeof number, "%lld", reply->integer);
        answer_kept((struct asker *)userdata, number, NULL);
    } else {
        answer_kept((struct asker *)userdata, reply->str, NULL); /* NULL of NIL */
    }
}

/* Returns how many words there are, or -E2BIG. */
static int split_words(const char *text, const char **words, size_t *sizes)
{
    int count = 0;

    while (*(text += strspn(text, " ")) != '\0') {
        if (count == WORDS_MAX)
            return -E2BIG;
        words[count] = text;
        sizes[count] = strcspn(text, " ");
        text += sizes[count++];
    }
    return count > 0 ? count : -EINVAL;
}

static int redis_ask(void *client, const char *question, struct asker asker)
{
    struct redis *redis = (struct redis *)client;
    const char *words[WORDS_MAX];
    size_t sizes[WORDS_MAX];
    int count = split_words(question, words, sizes);
    int r = count < 0 ? count : redis->context == NULL ? connect_redis(redis) : 0;
    struct asker *kept;

    if (r < 0)
        return r;
    kept = keep_asker(asker);
    if (kept == NULL)
        return -ENOMEM;
    if (redisAsyncCommandArgv(redis->context, on_reply, kept, count, words, sizes) !=
        REDIS_OK) {
        free(kept);
        return -ENOTCONN; /* it is being closed */
    }
    return 0;
}

static void redis_close(void *client)
{
    struct redis *redis = (struct redis *)client;

    if (redis->context != NULL) {
        redis->context->data = NULL;
        redisAsyncFree(redis->context);
    }
    if (redis->loop != NULL)
        (void)fdmux_hook_remove(redis->loop, redis->close_hook);
    free(redis);
}

const struct client_kind redis_kind = {"redis", redis_open, redis_ask, redis_close};
