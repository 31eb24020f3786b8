/* GETs of Redis by hiredis, on one connection. The SETs of their values come before. */
#ifndef FDMUX_BENCHMARKS_REDIS_GETS_H
#define FDMUX_BENCHMARKS_REDIS_GETS_H

#include "gets.h"

#include <hiredis/async.h>
#include <hiredis/hiredis.h>

enum { KEY_COUNT = 1000 };

static struct redis_gets {
    redisAsyncContext *context;
    void (*value)(const redisReply *reply); /* NULL: nobody wants it */
    char keys[KEY_COUNT][16];
    char values[KEY_COUNT][32];
} redis_gets;

static inline void gets_on_reply(redisAsyncContext *context, void *data, void *userdata)
{
    const redisReply *reply = data;
    const char *expected = userdata;
    int is_right = reply != NULL && reply->type == REDIS_REPLY_STRING &&
                   (size_t)reply->len == strlen(expected) &&
                   memcmp(reply->str, expected, (size_t)reply->len) == 0;

    (void)context;
    if (is_right && redis_gets.value != NULL)
        redis_gets.value(reply);
    gets_answer(0, is_right);
}

static inline int gets_ask(int place)
{
    long number = gets.asked % KEY_COUNT;
    const char *words[] = {"GET", redis_gets.keys[number]};
    int r = redisAsyncCommandArgv(redis_gets.context, gets_on_reply,
                                  redis_gets.values[number], 2, words, NULL);

    (void)place;
    return r == REDIS_OK ? 0 : -EIO;
}

static inline int redis_gets_set(int number)
{
    char *key = redis_gets.keys[number], *value = redis_gets.values[number];

    (void)snprintf(key, sizeof redis_gets.keys[0], "key:%d", number);
    (void)snprintf(value, sizeof redis_gets.values[0], "the value of key %d", number);
    return redisAsyncCommand(redis_gets.context, NULL, NULL, "SET %s %s", key, value) ==
                   REDIS_OK
               ? 0
               : -EIO;
}

static inline int gets_open(int port)
{
    int r = 0;

    redis_gets.context = redisAsyncConnect("127.0.0.1", port);
    if (redis_gets.context == NULL || redis_gets.context->err != 0)
        return -ENOTCONN;
    for (int i = 0; i < KEY_COUNT && r == 0; i++)
        r = redis_gets_set(i);
    return r;
}

#endif
