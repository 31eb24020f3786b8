/* test_stream_arguments.c: invalid tokens, options, handlers and addresses are refused;
 * nothing changes, and descriptors stay the caller's. */
#include "stream_fixtures.h"

#include <sys/socket.h>
#include <unistd.h>

enum { RECEIVE_MAX = 262144 };

static void expect_unknown(struct fdmux_loop *loop, uint64_t token)
{
    struct fdmux_stream_stats stats = {.struct_size = sizeof stats};
    struct fdmux_stream_write_op op = {token, "x", 1};
    struct fdmux_stream_handler handler = {.struct_size = sizeof handler,
                                           .fn = note_event};
    char address[28];

    CHECK_EQ(fdmux_stream_write(loop, token, "x", 1), -EIDRM);
    CHECK_EQ(fdmux_stream_write_batch(loop, &op, 1), 0);
    CHECK_EQ(fdmux_stream_shutdown(loop, token), -EIDRM);
    CHECK_EQ(fdmux_stream_pause(loop, token), -EIDRM);
    CHECK_EQ(fdmux_stream_resume(loop, token), -EIDRM);
    CHECK_EQ(fdmux_stream_close(loop, token, 0), -EIDRM);
    CHECK_EQ(fdmux_stream_fd(loop, token), -EIDRM);
    CHECK_EQ(fdmux_stream_stats(loop, token, &stats), -EIDRM);
    CHECK_EQ(fdmux_stream_set_handler(loop, token, &handler), -EIDRM);
    CHECK_EQ(fdmux_stream_await_writable(loop, token, 0), -EIDRM);
    CHECK_EQ(fdmux_stream_peer(loop, token, address, sizeof address), -EIDRM);
}

TEST(stale_and_forged_tokens_are_enoent)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    int fds[2];
    uint64_t stream;
    uint64_t again;

    open_sockets(fds);
    stream = add_stream(loop, fds[0], &witness);
    expect_unknown(loop, 0);
    expect_unknown(loop, UINT64_MAX);
    expect_unknown(loop, stream + 1);
    expect_unknown(loop, stream ^ UINT64_C(1) << 32);
    expect_unknown(loop, stream ^ UINT64_C(1) << 29); /* another kind */
    expect_unknown(loop, stream | UINT64_C(1) << 63);
    CHECK_EQ(fdmux_stream_close(loop, stream, 0), 0);
    CHECK_EQ(serve(loop), 0);
    expect_unknown(loop, stream);
    CHECK_EQ(serve(loop), 0);
    witness.destroyed = 0;
    again = add_stream(loop, fds[1], &witness);
    CHECK_EQ(again & 0x0fffffff, stream & 0x0fffffff);
    expect_unknown(loop, stream);
    fdmux_loop_destroy(loop);
}

static void expect_bad(struct fdmux_loop *loop, int fd,
                       const struct fdmux_stream_options *options, int error)
{
    uint64_t stream = 7;

    CHECK_EQ(fdmux_stream_add(loop, fd, options, &stream), error);
    CHECK_EQ(fdmux_stream_listen(loop, fd, options, &stream), error);
    CHECK_EQ(fdmux_stream_connect(loop, fd, options, &stream), error);
    CHECK_EQ(stream, 7);
}

TEST(bad_options_change_nothing)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    struct fdmux_stream_options good;
    struct fdmux_stream_options bad[7];
    uint64_t stream = 7;
    int fds[2];

    open_sockets(fds);
    good = options_for(loop, &witness);
    for (int i = 0; i < 7; i++)
        bad[i] = good;
    bad[0].struct_size--;
    bad[1].flags = FDMUX_STREAM_BORROW | 2;
    bad[2].receive_max = RECEIVE_MAX + 1;
    bad[3].queue_max = UINT32_MAX;
    bad[4].idle_timeout_ns = -1;
    bad[5].stall_timeout_ns = -1;
    bad[6].fn = NULL;
    for (int i = 0; i < 7; i++)
        expect_bad(loop, fds[0], &bad[i], i == 0 ? -E2BIG : -EINVAL);
    expect_bad(loop, fds[0], NULL, -EFAULT);
    CHECK_EQ(fdmux_stream_add(loop, fds[0], &good, NULL), -EFAULT);
    CHECK_EQ(fdmux_stream_add(NULL, fds[0], &good, &stream), -EFAULT);
    CHECK_EQ(fdmux_stream_add(loop, -1, &good, &stream), -EBADF);
    CHECK_EQ(fdmux_stream_add(loop, 999999, &good, &stream), -EBADF);
    CHECK_EQ(stream, 7);
    CHECK_EQ(close(fds[0]) + close(fds[1]), 0); /* still the caller's */
    fdmux_loop_destroy(loop);
    CHECK_EQ(witness.destroyed, 0);
}

TEST(bad_arguments_are_refused)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    struct fdmux_stream_write_op ops[2] = {{0, "x", 1}, {0, NULL, 1}};
    struct fdmux_stream_stats stats = {.struct_size = sizeof stats - 1};
    int fds[2];
    uint64_t stream;

    open_sockets(fds);
    stream = add_stream(loop, fds[0], &witness);
    ops[0].stream = ops[1].stream = stream;
    CHECK_EQ(fdmux_stream_write(loop, stream, NULL, 1), -EFAULT);
    CHECK_EQ(fdmux_stream_write(loop, stream, NULL, 0), 0);
    CHECK_EQ(fdmux_stream_write(NULL, stream, "x", 1), -EFAULT);
    CHECK_EQ(fdmux_stream_write_batch(loop, ops, 2), -EFAULT);
    CHECK_EQ(fdmux_stream_write_batch(loop, NULL, 1), -EFAULT);
    CHECK_EQ(fdmux_stream_write_batch(NULL, ops, 1), -EFAULT);
    CHECK_EQ(fdmux_stream_write_batch(loop, NULL, 0), 0);
    CHECK_EQ(fdmux_stream_close(loop, stream, 2), -EINVAL);
    CHECK_EQ(fdmux_stream_close(NULL, stream, 0), -EFAULT);
    CHECK_EQ(fdmux_stream_stats(loop, stream, &stats), -E2BIG);
    CHECK_EQ(fdmux_stream_stats(loop, stream, NULL), -EFAULT);
    CHECK_EQ(fdmux_stream_total_max(NULL, 1), -EFAULT);
    CHECK_EQ(fdmux_stream_await_writable(NULL, stream, 0), -EFAULT);
    CHECK_EQ(fdmux_stream_peer(NULL, stream, &stats, sizeof stats), -EFAULT);
    CHECK_EQ(fdmux_stream_peer(loop, stream, NULL, 28), -EFAULT);
    CHECK_EQ(fdmux_stream_set_prefetch(NULL, note_event, NULL), -EFAULT);
    CHECK_EQ(fdmux_stream_set_prefetch(loop, NULL, NULL), -EINVAL);
    CHECK(!is_readable(fds[1]));
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(witness.destroyed, 0);
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(fds[1]), 0);
}

/* A bad handler does not call the `destroyed` of the old one. */
TEST(bad_handlers_are_refused)
{
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    struct fdmux_stream_handler handler = {.struct_size = sizeof handler};
    int fds[2];
    uint64_t stream;

    open_sockets(fds);
    stream = add_stream(loop, fds[0], &witness);
    CHECK_EQ(fdmux_stream_set_handler(loop, stream, &handler), -EINVAL); /* no fn */
    CHECK_EQ(fdmux_stream_set_handler(loop, stream, NULL), -EFAULT);
    handler.fn = note_event;
    CHECK_EQ(fdmux_stream_set_handler(NULL, stream, &handler), -EFAULT);
    handler.struct_size++;
    CHECK_EQ(fdmux_stream_set_handler(loop, stream, &handler), -E2BIG);
    CHECK_EQ(witness.destroyed, 0);
    CHECK_EQ(send(fds[1], "x", 1, 0), 1);
    CHECK_EQ(serve(loop), 0);
    CHECK_EQ(witness.received, 1); /* unchanged */
    fdmux_loop_destroy(loop);
    CHECK_EQ(close(fds[1]), 0);
}

TEST(bad_addresses_are_refused)
{
    static const char long_path[] =
        "/tmp/0123456789012345678901234567890123456789012345678901234567890123456789"
        "0123456789012345678901234567890123456789";
    struct fdmux_stream_address bad[] = {
        {.host = NULL},
        {.host = "127.0.0.1", .path = "/tmp/both"},
        {.host = "localhost"},
        {.host = ""},
        {.path = ""},
        {.path = long_path},
        {.host = "127.0.0.1", .flags = 0x80},
        {.host = "127.0.0.1", .backlog = -1},
        {.host = "127.0.0.1", .reserved = 1},
    };
    struct fdmux_loop *loop = check_open_loop();
    struct witness witness = {0};
    struct fdmux_stream_options options = options_for(loop, &witness);
    uint64_t stream = 7;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bad[i].struct_size = sizeof *bad;
        CHECK_EQ(fdmux_stream_listen_at(loop, &bad[i], &options, &stream), -EINVAL);
        CHECK_EQ(fdmux_stream_connect_to(loop, &bad[i], &options, &stream), -EINVAL);
    }
    CHECK_EQ(fdmux_stream_listen_at(loop, NULL, &options, &stream), -EFAULT);
    bad[0] =
        (struct fdmux_stream_address){.struct_size = sizeof *bad, .host = "192.0.2.1"};
    CHECK_EQ(fdmux_stream_listen_at(loop, bad, &options, &stream), -EADDRNOTAVAIL);
    bad[0].host = "127.0.0.1";
    CHECK_EQ(fdmux_stream_listen_at(loop, bad, NULL, &stream), -EFAULT);
    CHECK_EQ(fdmux_stream_listen_at(loop, bad, &options, NULL), -EFAULT);
    CHECK_EQ(stream, 7);
    fdmux_loop_destroy(loop);
}
