/* fdmux_api.h: the table of functions, for callers that do not link the core.
 *
 * An extension finds it in a capsule, with fdmux_python.h. Code in another language
 * reads it member by member. */
#ifndef FDMUX_API_H
#define FDMUX_API_H

#include "fdmux.h"

#ifdef __cplusplus
extern "C" {
#endif

/* cffi:begin */

struct fdmux_stream_api;
struct fdmux_tls_api;
struct fdmux_datagram_api;

/* The functions of fdmux.h, for callers that do not link the core. Within one abi_major
 * it only grows: a caller needs the same abi_major and at least its own struct_size. */
struct fdmux_api {
    uint32_t abi_major;
    uint32_t abi_minor;
    size_t struct_size;
    int (*loop_create)(const struct fdmux_loop_options *options,
                       struct fdmux_loop **ret_loop);
    struct fdmux_loop *(*loop_destroy)(struct fdmux_loop *loop);
    struct fdmux_loop *(*loop_ref)(struct fdmux_loop *loop);
    struct fdmux_loop *(*loop_unref)(struct fdmux_loop *loop);
    int (*loop_at_close)(struct fdmux_loop *loop, fdmux_close_fn fn, void *userdata,
                         uint64_t *ret_hook);
    int (*loop_fd)(struct fdmux_loop *loop);
    int (*loop_next_deadline)(struct fdmux_loop *loop, int64_t *ret_deadline_ns);
    int (*loop_dispatch)(struct fdmux_loop *loop, int64_t timeout_ns,
                         struct fdmux_ready *ready, int capacity);
    int (*loop_run)(struct fdmux_loop *loop);
    int (*loop_stop)(struct fdmux_loop *loop);
    int (*loop_wake)(struct fdmux_loop *loop);
    int64_t (*loop_now)(struct fdmux_loop *loop);
    const char *(*loop_backend)(struct fdmux_loop *loop);
    int (*loop_stats)(struct fdmux_loop *loop, struct fdmux_loop_stats *stats);
    int (*loop_after_fork)(struct fdmux_loop *loop);
    int (*loop_hold)(struct fdmux_loop *loop, const struct fdmux_hold *hold);
    int (*loop_set_return)(struct fdmux_loop *loop, fdmux_return_fn fn, void *userdata);
    int (*io_add)(struct fdmux_loop *loop, const struct fdmux_io_options *options,
                  uint64_t *ret_io);
    int (*io_update)(struct fdmux_loop *loop, uint64_t io, uint32_t events);
    int (*io_replace_fd)(struct fdmux_loop *loop, uint64_t io, fdmux_fd fd,
                         uint32_t events);
    int (*io_fd)(struct fdmux_loop *loop, uint64_t io);
    int (*io_remove)(struct fdmux_loop *loop, uint64_t io);
    int (*timer_add)(struct fdmux_loop *loop, const struct fdmux_timer_options *options,
                     uint64_t *ret_timer);
    int (*timer_arm)(struct fdmux_loop *loop, uint64_t timer, int64_t deadline_ns,
                     int64_t period_ns);
    int (*timer_arm_in)(struct fdmux_loop *loop, uint64_t timer, int64_t delay_ns,
                        int64_t period_ns);
    int (*timer_cancel)(struct fdmux_loop *loop, uint64_t timer);
    int (*timer_remove)(struct fdmux_loop *loop, uint64_t timer);
    int (*post)(struct fdmux_loop *loop, fdmux_post_fn fn, void *userdata);
    int (*hook_add)(struct fdmux_loop *loop, const struct fdmux_hook_options *options,
                    uint64_t *ret_hook);
    int (*hook_remove)(struct fdmux_loop *loop, uint64_t hook);
    const struct fdmux_stream_api *stream; /* fdmux_stream.h */
    int (*queue_create)(const struct fdmux_queue_options *options,
                        struct fdmux_queue **ret_queue);
    struct fdmux_queue *(*queue_ref)(struct fdmux_queue *queue);
    struct fdmux_queue *(*queue_unref)(struct fdmux_queue *queue);
    int (*queue_set_drop)(struct fdmux_queue *queue, fdmux_queue_drop_fn drop,
                          void *userdata);
    int (*queue_fd)(struct fdmux_queue *queue);
    int (*queue_put)(struct fdmux_queue *queue, void *item);
    int (*queue_take)(struct fdmux_queue *queue, void **items, int capacity);
    int (*queue_close)(struct fdmux_queue *queue);
    const struct fdmux_tls_api *tls; /* fdmux_tls.h */
    const struct fdmux_datagram_api *datagram; /* fdmux_datagram.h */
    int (*loop_handle)(struct fdmux_loop *loop, void **ret_handle);
};

/* The table of this core, which is static. */
FDMUX_API const struct fdmux_api *fdmux_get_api(void);

/* The content of a capsule named "fdmux.loop" (see fdmux_python.h). */
struct fdmux_loop_handle {
    const struct fdmux_api *api;
    struct fdmux_loop *loop;
};

/* The content of a capsule named "fdmux.queue" (see fdmux_python.h). */
struct fdmux_queue_handle {
    const struct fdmux_api *api;
    struct fdmux_queue *queue;
};

/* cffi:end */

#ifdef __cplusplus
}
#endif

#endif /* FDMUX_API_H */
