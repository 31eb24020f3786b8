/* api.c: the function table that consumers find at run time. Append only.
 *
 * The only file that knows the core, streams, TLS and datagrams. */
#include "fdmux_api.h"
#include "fdmux_datagram.h"
#include "fdmux_stream.h"
#include "fdmux_tls.h"

static const struct fdmux_stream_api stream_api = {
    .struct_size = sizeof(struct fdmux_stream_api),
    .total_max = fdmux_stream_total_max,
    .add = fdmux_stream_add,
    .listen = fdmux_stream_listen,
    .connect = fdmux_stream_connect,
    .listen_at = fdmux_stream_listen_at,
    .connect_to = fdmux_stream_connect_to,
    .set_handler = fdmux_stream_set_handler,
    .write = fdmux_stream_write,
    .write_batch = fdmux_stream_write_batch,
    .shutdown = fdmux_stream_shutdown,
    .pause = fdmux_stream_pause,
    .resume = fdmux_stream_resume,
    .close = fdmux_stream_close,
    .fd = fdmux_stream_fd,
    .stats = fdmux_stream_stats,
    .await_writable = fdmux_stream_await_writable,
    .peer = fdmux_stream_peer,
    .set_prefetch = fdmux_stream_set_prefetch,
};

static const struct fdmux_tls_api tls_api = {
    .struct_size = sizeof(struct fdmux_tls_api),
    .start_tls = fdmux_stream_start_tls,
    .tls_error = fdmux_stream_tls_error,
};

static const struct fdmux_datagram_api datagram_api = {
    .struct_size = sizeof(struct fdmux_datagram_api),
    .features = fdmux_datagram_features,
    .add = fdmux_datagram_add,
    .bind = fdmux_datagram_bind,
    .connect = fdmux_datagram_connect,
    .set_handler = fdmux_datagram_set_handler,
    .send = fdmux_datagram_send,
    .send_many = fdmux_datagram_send_many,
    .close = fdmux_datagram_close,
    .fd = fdmux_datagram_fd,
    .stats = fdmux_datagram_stats,
    .await_writable = fdmux_datagram_await_writable,
    .queued = fdmux_datagram_queued,
    .pause = fdmux_datagram_pause,
    .resume = fdmux_datagram_resume,
};

static const struct fdmux_api api = {
    .abi_major = FDMUX_ABI_MAJOR,
    .abi_minor = FDMUX_ABI_MINOR,
    .struct_size = sizeof(struct fdmux_api),
    .loop_create = fdmux_loop_create,
    .loop_destroy = fdmux_loop_destroy,
    .loop_ref = fdmux_loop_ref,
    .loop_unref = fdmux_loop_unref,
    .loop_at_close = fdmux_loop_at_close,
    .loop_fd = fdmux_loop_fd,
    .loop_next_deadline = fdmux_loop_next_deadline,
    .loop_dispatch = fdmux_loop_dispatch,
    .loop_run = fdmux_loop_run,
    .loop_stop = fdmux_loop_stop,
    .loop_wake = fdmux_loop_wake,
    .loop_now = fdmux_loop_now,
    .loop_backend = fdmux_loop_backend,
    .loop_stats = fdmux_loop_stats,
    .loop_after_fork = fdmux_loop_after_fork,
    .loop_hold = fdmux_loop_hold,
    .loop_set_return = fdmux_loop_set_return,
    .io_add = fdmux_io_add,
    .io_update = fdmux_io_update,
    .io_replace_fd = fdmux_io_replace_fd,
    .io_fd = fdmux_io_fd,
    .io_remove = fdmux_io_remove,
    .timer_add = fdmux_timer_add,
    .timer_arm = fdmux_timer_arm,
    .timer_arm_in = fdmux_timer_arm_in,
    .timer_cancel = fdmux_timer_cancel,
    .timer_remove = fdmux_timer_remove,
    .post = fdmux_post,
    .hook_add = fdmux_hook_add,
    .hook_remove = fdmux_hook_remove,
    .stream = &stream_api,
    .queue_create = fdmux_queue_create,
    .queue_ref = fdmux_queue_ref,
    .queue_unref = fdmux_queue_unref,
    .queue_set_drop = fdmux_queue_set_drop,
    .queue_fd = fdmux_queue_fd,
    .queue_put = fdmux_queue_put,
    .queue_take = fdmux_queue_take,
    .queue_close = fdmux_queue_close,
    .tls = &tls_api,
    .datagram = &datagram_api,
    .loop_handle = fdmux_loop_handle,
};

const struct fdmux_api *fdmux_get_api(void)
{
    return &api;
}
