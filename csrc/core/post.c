/* post.c: see post.h.
 *
 * There are two arrays: threads append to `incoming`, under `post_lock`, while the loop
 * calls what is in `running`. So a post costs an append and, if the loop may be asleep,
 * one write. What a posted function posts runs in the next iteration. */
#include "post.h"

#include <errno.h>

#include "../platform/sys.h"
#include "batch.h"
#include "gate.h"
#include "wake.h"

int fdmux__post_open(struct fdmux_loop *loop)
{
    return fdmux__lock_open(&loop->post_lock);
}

static int grow(struct fdmux__post_queue *queue)
{
    uint32_t capacity = queue->capacity == 0 ? 64 : queue->capacity * 2;
    struct fdmux__post *posts;

    if (capacity <= queue->capacity)
        return -ENOMEM; /* the count would not fit its type */
    posts = fdmux__sys_realloc(queue->posts, capacity * sizeof *posts);
    if (posts == NULL)
        return -ENOMEM;
    queue->posts = posts;
    queue->capacity = capacity;
    return 0;
}

static int append(struct fdmux_loop *loop, struct fdmux__post post)
{
    struct fdmux__post_queue *queue = &loop->incoming;

    if (loop->is_post_closed)
        return -ESTALE;
    if (queue->count == queue->capacity && grow(queue) < 0)
        return -ENOMEM;
    queue->posts[queue->count++] = post;
    atomic_store(&loop->incoming_count, queue->count);
    return 0;
}

int fdmux_post(struct fdmux_loop *loop, fdmux_post_fn fn, void *userdata)
{
    int r = fdmux__loop_check(loop);

    if (r < 0)
        return r;
    if (fn == NULL)
        return -EINVAL;
    fdmux__lock_take(&loop->post_lock);
    r = append(loop, (struct fdmux__post){fn, userdata});
    fdmux__lock_release(&loop->post_lock);
    if (r < 0)
        return r;
    /* The post is accepted; if a sandbox refuses the write, the call is only late. */
    (void)fdmux__wake_ring(loop);
    return 0;
}

/* Make the incoming posts the running ones; the emptied array takes new ones. */
static void swap_queues(struct fdmux_loop *loop)
{
    struct fdmux__post_queue emptied = loop->running;

    fdmux__lock_take(&loop->post_lock);
    loop->running = loop->incoming;
    emptied.count = 0;
    loop->incoming = emptied;
    atomic_store(&loop->incoming_count, 0);
    fdmux__lock_release(&loop->post_lock);
    loop->running_next = 0;
}

/* Posts that were not reached stay in `running`. */
int fdmux__post_dispatch(struct fdmux_loop *loop, struct fdmux__batch *batch)
{
    int r = 0;

    if (loop->running_next == loop->running.count)
        swap_queues(loop);
    while (loop->running_next < loop->running.count && r >= 0 &&
           !atomic_load(&loop->is_closing)) {
        struct fdmux__post post = loop->running.posts[loop->running_next++];

        batch->called++;
        fdmux__count(&loop->counters.posts, 1);
        r = fdmux__fn_result(loop, post.fn(loop, post.userdata));
        if (fdmux__step_must_end(batch))
            break;
    }
    return r;
}

void fdmux__post_close(struct fdmux_loop *loop)
{
    fdmux__lock_take(&loop->post_lock);
    loop->is_post_closed = true;
    fdmux__lock_release(&loop->post_lock);
    do {
        while (loop->running_next < loop->running.count) {
            struct fdmux__post post = loop->running.posts[loop->running_next++];

            (void)post.fn(NULL, post.userdata); /* no dispatch can report it */
        }
        swap_queues(loop);
    } while (loop->running.count > 0);
}

void fdmux__post_drop(struct fdmux_loop *loop)
{
    loop->incoming.count = 0;
    loop->running.count = 0;
    loop->running_next = 0;
    atomic_store(&loop->incoming_count, 0);
}

void fdmux__post_free(struct fdmux_loop *loop)
{
    fdmux__sys_free(loop->incoming.posts);
    fdmux__sys_free(loop->running.posts);
    fdmux__lock_close(&loop->post_lock); /* no other thread is left */
}
