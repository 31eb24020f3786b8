/* native_putters.c: native threads that put numbers into a queue.
 *
 * Links nothing of fdmux: it gets the function table and a queue as plain pointers, as
 * an extension does through the capsule. The items are the numbers themselves. */
#include <fdmux_api.h>

#include <pthread.h>
#include <stdlib.h>

struct putter {
    const struct fdmux_api *api;
    struct fdmux_queue *queue; /* the thread's reference */
    pthread_t thread;
    int64_t first;
    int64_t count;
    int64_t refused; /* the last error, or 0 */
};

static void *put_all(void *userdata)
{
    struct putter *putter = userdata;

    for (int64_t i = 0; i < putter->count; i++) {
        void *item = (void *)(intptr_t)(putter->first + i);
        int r = putter->api->queue_put(putter->queue, item);

        if (r < 0)
            putter->refused = r;
    }
    return NULL;
}

struct putter *putter_start(const struct fdmux_api *api, struct fdmux_queue *queue,
                            int64_t first, int64_t count)
{
    struct putter *putter = calloc(1, sizeof *putter);

    if (putter == NULL)
        return NULL;
    putter->api = api;
    putter->queue = api->queue_ref(queue);
    putter->first = first;
    putter->count = count;
    if (pthread_create(&putter->thread, NULL, put_all, putter) == 0)
        return putter;
    api->queue_unref(queue);
    free(putter);
    return NULL;
}

int64_t putter_join(struct putter *putter)
{
    int64_t refused;

    (void)pthread_join(putter->thread, NULL); /* started, and joined once */
    putter->api->queue_unref(putter->queue);
    refused = putter->refused;
    free(putter);
    return refused;
}

int putter_put(const struct fdmux_api *api, struct fdmux_queue *queue, int64_t number)
{
    return api->queue_put(queue, (void *)(intptr_t)number);
}

void putter_ref(const struct fdmux_api *api, struct fdmux_queue *queue)
{
    (void)api->queue_ref(queue); /* returns the same pointer */
}

void putter_unref(const struct fdmux_api *api, struct fdmux_queue *queue)
{
    (void)api->queue_unref(queue); /* always returns NULL */
}

int putter_take(const struct fdmux_api *api, struct fdmux_queue *queue, void **items,
                int capacity)
{
    return api->queue_take(queue, items, capacity);
}

static void add_to_sum(void *item, void *sum)
{
    *(int64_t *)sum += (int64_t)(intptr_t)item;
}

int putter_set_drop(const struct fdmux_api *api, struct fdmux_queue *queue,
                    int64_t *sum)
{
    return api->queue_set_drop(queue, add_to_sum, sum);
}
