/* Posted calls on libuv: uv_async_send coalesces, so pending calls are kept in a queue
 * under a mutex, as libuv's documentation advises. It has two arrays, one of which
 * fills while the other runs, so the queue is as good as that of fdmux. */
#include "post.h"

#include <uv.h>

struct queue {
    void **calls;
    size_t count;
    size_t capacity;
};

static struct post *post;
static uv_loop_t loop;
static uv_async_t async;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct queue incoming;
static struct queue running;

static void on_async(uv_async_t *handle)
{
    struct queue emptied = running;

    pthread_mutex_lock(&lock);
    running = incoming;
    emptied.count = 0;
    incoming = emptied;
    pthread_mutex_unlock(&lock);
    for (size_t i = 0; i < running.count; i++) {
        if (post_on_call(post, running.calls[i]))
            uv_stop(handle->loop);
    }
}

static int open_loop(struct post *all)
{
    int r = uv_loop_init(&loop);

    post = all;
    return r < 0 ? r : uv_async_init(&loop, &async, on_async);
}

static int append(void *userdata)
{
    if (incoming.count == incoming.capacity) {
        size_t capacity = incoming.capacity == 0 ? 64 : incoming.capacity * 2;
        void **calls =
            (void **)realloc((void *)incoming.calls, capacity * sizeof *calls);

        if (calls == NULL)
            return UV_ENOMEM;
        incoming.calls = calls;
        incoming.capacity = capacity;
    }
    incoming.calls[incoming.count++] = userdata;
    return 0;
}

static int post_call(void *userdata)
{
    int r;

    pthread_mutex_lock(&lock);
    r = append(userdata);
    pthread_mutex_unlock(&lock);
    return r < 0 ? r : uv_async_send(&async);
}

static int run(void)
{
    (void)uv_run(&loop, UV_RUN_DEFAULT); /* returns only whether handles are left */
    return 0;
}

int main(int argc, char **argv)
{
    return post_main(argc, argv, &(struct post_peer){open_loop, post_call, run});
}
